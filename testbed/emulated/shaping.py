"""The tc commands that make a WAN's rates, caps and delays; pure functions, one line a command.

Lines are for ``tc -batch -``, which stops at the first error. Every rate is in bit/s, every size
in bytes, every time in seconds.

Why leaf classes guarantee little when there is a cap: HTB lets a class send at its guaranteed
``rate`` even when its parent is in debt, so the guarantees below a cap must not exceed it. Each of
n neighbours is guaranteed at most ``cap / n`` and borrows up to its link's rate (``ceil``) from
the root class; HTB hands out what is left in equal turns, which is the max-min fair share.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from testbed.emulated.naming import mac_words
from testbed.wan.types import Distribution

UNLIMITED = 100e9  # rate of a root class without a cap, beyond what a virtual wire can carry
SMALLEST_RATE = 8e3  # below it one packet takes seconds, and HTB's arithmetic gives out
SMALLEST_QUEUE = 128 * 1024  # a GSO super-packet has up to 64 KiB; two of them must fit
BURST_S = 2e-3  # how much a class may send at once, in time at its rate
SMALLEST_BURST = 2 * 1514  # two Ethernet frames
TURN = 10 * 1514  # bytes of one class's turn when classes compete for a cap
FIRST_MINOR = 0x10  # classid 1:10 is neighbour 0 of a center, 1:11 neighbour 1, ...
ROOT_MINOR = 1
FIRST_LEAF = 0x1000  # handles of leaf queues begin here
NETEM_SLACK_PACKETS = 1000
LONGEST_JITTER = 4  # times its scale; a normal one exceeds that once in 30,000 packets


class Branch(NamedTuple):
    """One class of a shaped interface: packets with this MAC address get this treatment."""

    minor: int
    mac: str
    rate: float  # bit/s
    rtt: float  # s, sizes the queue


class DelayBranch(NamedTuple):
    """Packets from this MAC address are held for so long before they leave a switch port."""

    minor: int
    source_mac: str
    delay: float  # s
    rate: float  # bit/s of the link, sizes the queue
    jitter: float = 0.0  # s
    distribution: Distribution = "uniform"  # of the jitter
    loss: float = 0.0  # share of packets
    seed: str | None = None  # of the draws; None: the kernel's own source


def queue_bytes(rate: float, rtt: float) -> int:
    """Bound of a leaf queue: the bandwidth-delay product, at least two GSO super-packets.

    >>> queue_bytes(100e6, 0.04), queue_bytes(1e6, 0.04)
    (500000, 131072)
    """
    return max(SMALLEST_QUEUE, round(rate * rtt / 8))


def burst_bytes(rate: float) -> int:
    """What a class may send back to back: 2 ms at its rate, at least two frames."""
    return max(SMALLEST_BURST, round(rate * BURST_S / 8))


def egress(interface: str, branches: Sequence[Branch], cap: float | None) -> list[str]:
    """Shapes a gateway's WAN interface: a class per neighbour, by the next hop's MAC address.

    Packets to any other address match no filter and no class; the WAN switch drops them.
    """
    lines = [
        f"qdisc replace dev {interface} root handle 1: htb default 0",
        _root_class(interface, cap),
    ]
    for branch in branches:
        high, low = mac_words(branch.mac)
        lines += [
            _leaf_class("add", interface, branch.minor, branch.rate, cap, len(branches)),
            _queue("add", interface, branch.minor, queue_bytes(branch.rate, branch.rtt)),
            f"filter add dev {interface} parent 1: protocol all prio 1 u32"
            f" match u16 {high:#06x} 0xffff at -14 match u32 {low:#010x} 0xffffffff at -12"
            f" flowid 1:{branch.minor:x}",
        ]
    return lines


def change(
    interface: str, changed: Sequence[Branch], cap: float | None, neighbours: int
) -> list[str]:
    """Changes rates and queue bounds in place: packets under way stay queued.

    Args:
      interface: the gateway's WAN interface.
      changed: the branches with their new rates.
      cap: the center's egress cap.
      neighbours: how many branches the interface has.
    """
    lines = []
    for branch in changed:
        bound = queue_bytes(branch.rate, branch.rtt)
        lines += [
            _leaf_class("change", interface, branch.minor, branch.rate, cap, neighbours),
            _queue("change", interface, branch.minor, bound),
        ]
    return lines


def limit(interface: str, rate: float, queue: int) -> list[str]:
    """Shapes all that leaves an interface to one rate: LAN hosts, ingress caps."""
    return [
        f"qdisc replace dev {interface} root handle 1: htb default {ROOT_MINOR:x}",
        _root_class(interface, rate),
        _queue("add", interface, ROOT_MINOR, queue),
    ]


def netem(interface: str, branches: Sequence[DelayBranch], cap: float | None) -> list[str]:
    """Delays what leaves a switch port by its source, under the target's ingress cap.

    netem counts packets, and one may be a GSO super-packet; its limit is generous, because the
    links are bounded by their queues before they come here.
    """
    lines = [
        f"qdisc replace dev {interface} root handle 1: htb default 0",
        _root_class(interface, cap),
    ]
    for branch in branches:
        high, low = branch.source_mac[:11], branch.source_mac[12:]
        first, last = int(high.replace(":", ""), 16), int(low.replace(":", ""), 16)
        lines += [
            _leaf_class("add", interface, branch.minor, UNLIMITED, cap, len(branches)),
            netem_queue("add", interface, branch),
            f"filter add dev {interface} parent 1: protocol all prio 1 u32"
            f" match u32 {first:#010x} 0xffffffff at -8 match u16 {last:#06x} 0xffff at -4"
            f" flowid 1:{branch.minor:x}",
        ]
    return lines


def netem_queue(verb: str, interface: str, branch: DelayBranch) -> str:
    """Adds or changes the netem of one link, with all of its settings.

    A jitter comes with a ``rate``: netem then lets no packet leave before the one that came before
    it, and so keeps every flow in order (``netem_enqueue`` in the kernel's net/sched/sch_netem.c).
    """
    line = (
        f"qdisc {verb} dev {interface} parent 1:{branch.minor:x} handle {_leaf(branch.minor)}"
        f" netem delay {round(branch.delay * 1e6)}us"
    )
    if branch.jitter:
        line += f" {round(branch.jitter * 1e6)}us"
        if branch.distribution == "normal":
            line += " distribution normal"
    if branch.loss:
        line += f" loss random {branch.loss * 100:.6g}%"
    if branch.seed is not None:
        line += f" seed {zlib.crc32(branch.seed.encode())}"
    longest = branch.delay + LONGEST_JITTER * branch.jitter
    packets = NETEM_SLACK_PACKETS + round(2 * branch.rate * longest / 8 / 512)
    line += f" limit {packets}"
    return line + f" rate {UNLIMITED:.0f}bit" if branch.jitter else line


def sent_bytes(class_show: str) -> dict[int, int]:
    r"""Bytes that each class has sent, by minor number, from ``tc -s class show``'s output.

    >>> sent_bytes("class htb 1:10 parent 1:1 leaf 10: prio 0 rate 1Mbit\n Sent 99 bytes 1 pkt")
    {16: 99}
    """
    found = re.findall(r"^class htb 1:([0-9a-f]+) .*\n Sent (\d+) bytes", class_show, re.MULTILINE)
    return {int(minor, 16): int(count) for minor, count in found}


def _root_class(interface: str, cap: float | None) -> str:
    rate = _rate(UNLIMITED if cap is None else cap)
    return f"class add dev {interface} parent 1: classid 1:{ROOT_MINOR:x} htb {rate}"


def _leaf_class(
    verb: str, interface: str, minor: int, rate: float, cap: float | None, neighbours: int
) -> str:
    sure = rate if cap is None else min(rate, cap / neighbours)
    return (
        f"class {verb} dev {interface} parent 1:{ROOT_MINOR:x} classid 1:{minor:x} htb"
        f" {_rate(sure, rate)}"
    )


def _rate(sure: float, ceiling: float | None = None) -> str:
    ceiling = sure if ceiling is None else ceiling
    return (
        f"rate {round(sure)}bit ceil {round(ceiling)}bit burst {burst_bytes(sure)}"
        f" cburst {burst_bytes(ceiling)} quantum {TURN}"
    )


def _leaf(minor: int) -> str:
    """The handle of a class's queue; 1: is the interface's own."""
    return f"{minor + FIRST_LEAF:x}:"


def _queue(verb: str, interface: str, minor: int, size: int) -> str:
    return (
        f"qdisc {verb} dev {interface} parent 1:{minor:x} handle {_leaf(minor)} bfifo limit {size}"
    )
