"""All federated algorithms: importing this makes them available as ``sync=…``."""

from __future__ import annotations

from geojax.federated import (  # noqa: F401  they register themselves
    fedavg,
    feddyn,
    fedfusion,
    fedmmd,
    fednova,
    fedopt,
    fedprox,
    ida,
    moon,
    scaffold,
)
from geojax.federated.base import FEDERATED

__all__ = ["FEDERATED"]
