"""What goes wrong on the emulated testbed."""

from __future__ import annotations

from geojax.errors import GeojaxError


class TestbedError(GeojaxError):
    """The emulated WAN cannot be made, or is not what was configured."""

    __test__ = False  # not a test, whatever pytest thinks of the name
