"""What goes wrong on a testbed of real processes."""

from __future__ import annotations

from geojax.errors import GeojaxError


class TestbedError(GeojaxError):
    """An emulated WAN or a CPU limit cannot be made, or is not as configured."""

    __test__ = False  # not a test, whatever pytest thinks of the name
