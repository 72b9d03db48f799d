"""Addresses and names: who is called what, on which interface.

Center number ``i`` (from 0) has the WAN address ``10.200.0.(i+1)`` and the LAN ``10.201.i.0/24``,
with its gateway at ``.1`` and its workers from ``.2``. All of it exists only inside the run's own
network namespaces, so two runs, or the machine's own networks, never collide.
"""

from __future__ import annotations

import hashlib

MAX_CENTERS = 250  # one LAN number each
MAX_WORKERS = 250  # one address each in a /24
MAC_PREFIX = 0x0267  # locally administered; the other four bytes tell network and host


def tag(run_id: str) -> str:
    """The prefix of every interface of a run: five characters that depend on ``run_id``.

    >>> tag("demo") == tag("demo") != tag("other")
    True
    """
    return "g" + hashlib.blake2s(run_id.encode()).hexdigest()[:4]


def interface(prefix: str, kind: str, center: int, worker: int | None = None) -> str:
    """A Linux interface name (at most 15 characters, no dot).

    Args:
      prefix: :func:`tag` of the run.
      kind: one letter: ``w`` gateway to WAN, ``s`` WAN switch port, ``l`` host to LAN,
        ``p`` LAN bridge port, ``b`` LAN bridge.
      center: index of the center.
      worker: index of the worker; None: the gateway.

    >>> interface("g12ab", "l", 3, 0)
    'g12ab-l3x0'
    """
    return f"{prefix}-{kind}{center}" + ("" if worker is None else f"x{worker}")


def wan_address(center: int) -> str:
    """The center's address on the WAN.

    >>> wan_address(0)
    '10.200.0.1'
    """
    return f"10.200.0.{center + 1}"


def wan_mac(center: int) -> str:
    """The MAC address of the center's interface on the WAN.

    >>> wan_mac(1)
    '02:67:00:00:00:02'
    """
    return _mac(0, center + 1)


def lan_network(center: int) -> str:
    """The network of a center's LAN."""
    return f"10.201.{center}.0/24"


def lan_address(center: int, worker: int | None = None) -> str:
    """The address of a worker, or of the gateway (None), on the center's LAN.

    >>> lan_address(4), lan_address(4, 0)
    ('10.201.4.1', '10.201.4.2')
    """
    return f"10.201.{center}.{1 if worker is None else worker + 2}"


def lan_mac(center: int, worker: int | None = None) -> str:
    """The MAC address that belongs to :func:`lan_address`."""
    return _mac(center + 1, 1 if worker is None else worker + 2)


def mac_words(mac: str) -> tuple[int, int]:
    """A MAC address as its first two and its last four bytes, the shape u32 filters want.

    >>> [hex(word) for word in mac_words("02:67:00:00:00:0a")]
    ['0x267', '0xa']
    """
    value = int(mac.replace(":", ""), 16)
    return value >> 32, value & 0xFFFF_FFFF


def _mac(network: int, host: int) -> str:
    value = MAC_PREFIX << 32 | network << 16 | host
    return ":".join(f"{value >> shift & 0xFF:02x}" for shift in range(40, -1, -8))
