"""The emulated WAN: real processes and real TCP in Mininet hosts on one Linux machine.

::

    from testbed.emulated import EmulatedWan

    with EmulatedWan(wan) as emulated:
        emulated.verify(tolerance=0.15)
        emulated.popen("c1", ["ping", "-c1", emulated.address("c2")]).wait()

How it is made. Every center has one gateway host (a Mininet host, a network namespace) with one
interface into one WAN switch. The gateway's interface carries an HTB tree: a root class for the
center's access cap, a class per neighbour for the directed link, chosen by the next hop's MAC
address. The switch delays packets by (source, target) pair and holds the ingress caps. Centers
without a link between them reach each other through intermediate gateways, which forward IP. The
switch also loses packets at random and varies their delays, where links say so, and holds them back
while a link's rate is 0; see :mod:`testbed.emulated.switch.paths`, or :func:`shaping.netem_queue`
on kernels with netem. Packets are lost one by one: a center with a lossy link sends no GSO
super-packets, which costs the delaying switch about eight times as much. Elsewhere a super-packet
draws one delay for all of its packets. While links are measured, jitter and loss are off. Workers
of a center are further hosts, joined with the gateway by a bridge, shaped to the LAN rate in both
directions. A LAN's delay (0.1 ms one way) lies below what emulation adds anyway (a veth pair and a
bridge take about 0.05 ms) and is not emulated.

Everything lives in anonymous namespaces that end with their processes; see
:mod:`testbed.emulated.cleanup.teardown` for how a run ends in every case.

The names here are loaded when first used: the helper processes of this package (forwarder, agent,
watchdog) run without anything beyond the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.emulated.measure.verify import LinkCheck
    from testbed.emulated.wan import EmulatedWan
    from testbed.errors import TestbedError

__all__ = ["EmulatedWan", "LinkCheck", "TestbedError"]


def __getattr__(name: str) -> Any:
    if name == "EmulatedWan":
        from testbed.emulated.wan import EmulatedWan

        return EmulatedWan
    if name == "LinkCheck":
        from testbed.emulated.measure.verify import LinkCheck

        return LinkCheck
    if name == "TestbedError":
        from testbed.errors import TestbedError

        return TestbedError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
