"""What one TCP connection reaches on a path, and how many it takes to fill it.

Where each packet is lost with probability p, a long transfer of Reno gets MSS / RTT · √(3/2) / √p
(Mathis et al., *The Macroscopic Behavior of the TCP Congestion Avoidance Algorithm*, 1997, eq. 3).
CUBIC gets that or, where it is more, MSS / RTT · (C (3 + β) / (4 (1 - β)))^¼ · (RTT / p)^¾ with
C = 0.4, β = 0.7 (RFC 9438, §5.1). BBR does not take a lost packet for congestion, and is not
limited. On the emulated testbed CUBIC and Reno came within some 40 % of this from p = 0.001 to 0.03
at 20 and 80 ms, and BBR to 85 % of the link's rate; below that a transfer of some seconds is still
above its steady state. Timeouts, which rule where p is above some per cent, are left out.
"""

from __future__ import annotations

import math

SEGMENT_BYTES = 1448  # an Ethernet frame's worth, less IP and TCP headers with timestamps
MATHIS = math.sqrt(3 / 2)
CUBIC = (0.4 * (3 + 0.7) / (4 * (1 - 0.7))) ** 0.25
WINDOW_BYTES = 3 << 20  # half of Linux's largest receive buffer, which holds more than payload
HEADROOM = 1.25  # connections do not lose packets evenly, and some wait for a timeout
MOST = 128  # connections that are chosen for a path; each takes a thread at both ends


def loss_limit(congestion_control: str, round_trip: float, loss: float) -> float:
    """Bit/s that one long-lived TCP connection reaches at most on a lossy path.

    Args:
      congestion_control: as in the kernel; anything but ``bbr`` backs off as CUBIC or Reno do.
      round_trip: s.
      loss: share of packets lost in the forward direction.

    >>> round(loss_limit("reno", 0.02, 0.01) / 1e6, 2)
    7.09
    """
    if loss == 0 or round_trip == 0 or congestion_control == "bbr":
        return math.inf
    segments = MATHIS / math.sqrt(loss)
    if congestion_control == "cubic":
        segments = max(segments, CUBIC * (round_trip / loss) ** 0.75)
    return segments * SEGMENT_BYTES * 8 / round_trip


def enough(congestion_control: str, rate: float, round_trip: float, loss: float) -> int:
    """How many connections fill a path: by its loss, and by its bandwidth-delay product.

    Args:
      congestion_control: as in the kernel.
      rate: of the path, bit/s.
      round_trip: s.
      loss: share of packets lost in the forward direction.

    Returns:
      1 to ``MOST``.

    >>> enough("cubic", 300e6, 0.2, 0.0), enough("cubic", 300e6, 0.2, 1e-3)
    (3, 116)
    """
    by_loss = HEADROOM * rate / loss_limit(congestion_control, round_trip, loss)
    by_window = rate * round_trip / 8 / WINDOW_BYTES
    return min(MOST, max(1, math.ceil(by_loss), math.ceil(by_window)))
