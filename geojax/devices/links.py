"""What travels between the devices and their base station, charged from a table."""

from __future__ import annotations

from typing import NamedTuple

_FLOAT = 4  # bytes of a parameter, and of a class count


class InternalLinks(NamedTuple):
    """The link of every device to its base station; all are alike, and none is shared.

    In a step each chosen device fetches the model and sends its gradient (or what it made of the
    model: as many numbers), and devices with a new batch report its class counts, where these are
    asked for. Reports travel with the gradients, so they cost no round trip of their own. Devices
    transfer at the same time.

    Attributes:
      rate: of a link, each way, Mbit/s.
      rtt: round trip, ms.
    """

    rate: float
    rtt: float

    def seconds(self, elements: int, classes: int = 0) -> float:
        """Duration of the transfers of one step, s.

        Args:
          elements: of the model's vector.
          classes: counts in a report; 0: there are no reports.

        >>> round(InternalLinks(rate=100.0, rtt=2.0).seconds(125_000), 6)  # 2 × 0.5 MB
        0.082
        """
        bits = 8 * _FLOAT * (2 * elements + classes)
        return bits / (self.rate * 1e6) + self.rtt / 1e3

    def step_bytes(self, elements: int, devices: int, *, reports: int = 0, classes: int = 0) -> int:
        """Bytes of the transfers of one step, both ways.

        >>> InternalLinks(100.0, 2.0).step_bytes(1000, 10, reports=10, classes=62)
        82480
        """
        return _FLOAT * (2 * elements * devices + reports * classes)
