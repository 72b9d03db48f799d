"""Mininet, imported in this one place, and the few parts of it that we replace.

Mininet gives hosts (namespaces held by a shell), switches, links and the command line. It only
prints the errors of tc and ip, so nothing here configures an interface through it; it changes
machine-wide limits when it starts (``fixLimits``), which a handful of hosts does not need.
"""

from __future__ import annotations

import warnings
from typing import Any

from testbed.emulated.commands import inside, run

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Mininet 2.3 uses distutils and unescaped patterns
    from mininet.cli import CLI
    from mininet.link import Intf, Link
    from mininet.net import Mininet
    from mininet.node import Host, Node, Switch

__all__ = ["BridgeSwitch", "CommandLine", "Host", "Net", "Node", "Switch", "WirePair", "addressed"]


class Net(Mininet):
    """A Mininet network that leaves the machine's limits alone and has no controller."""

    def __init__(self, **settings: Any):
        Mininet.inited = True  # skips fixLimits
        super().__init__(controller=None, link=WirePair, intf=QuietIntf, build=False, **settings)
        self.built = True  # we configure hosts ourselves


class CommandLine(CLI):
    """Mininet's command line, which also takes names such as ``c1/w0`` and ``eu-west-1``."""

    identchars = f"{CLI.identchars}/-."


class QuietIntf(Intf):
    """An interface that is told its address instead of asking ifconfig for it."""

    def config(self, **_settings: Any) -> dict[str, Any]:
        """Nothing: addresses and shaping are set by our own commands."""
        return {}

    def updateIP(self) -> str | None:  # noqa: N802 (Mininet's name)
        """The address that we have set."""
        return self.ip


class WirePair(Link):
    """A veth pair, made directly in the two hosts' namespaces: none ever exists outside them."""

    @classmethod
    def makeIntfPair(  # noqa: N802 (Mininet's name)
        cls,
        intfname1: str,
        intfname2: str,
        addr1: str | None = None,
        addr2: str | None = None,
        node1: Any = None,
        node2: Any = None,
        deleteIntfs: bool = True,  # noqa: ARG003, N803 (Mininet's name)
    ) -> None:
        """Makes the pair, and fails loudly."""
        run(
            inside(
                node1.pid,
                [
                    *("ip", "link", "add", "name", intfname1, "address", str(addr1)),
                    *("type", "veth", "peer", "name", intfname2, "address", str(addr2)),
                    *("netns", str(node2.pid)),
                ],
            )
        )


class BridgeSwitch(Switch):
    """A kernel bridge in a namespace of its own, with all its ports.

    Args:
      name: of the switch.
      bridge: of the bridge interface.
    """

    def __init__(self, name: str, *, bridge: str, **settings: Any):
        super().__init__(name, **{**settings, "inNamespace": True, "dpid": "1"})
        self.bridge = bridge

    def start(self, _controllers: Any) -> None:
        """Makes the bridge over the interfaces that the switch has by now."""
        ports = [name for name in self.nameToIntf if name != "lo"]
        lines = [f"link add name {self.bridge} type bridge forward_delay 0 mcast_snooping 0"]
        for port in ports:
            lines += [f"link set {port} master {self.bridge}", f"link set {port} up"]
        run(inside(self.pid, ["ip", "-batch", "-"]), [*lines, f"link set {self.bridge} up"])


def addressed(intf: Any, address: str) -> None:
    """Tells Mininet the address that we gave an interface, for its command line."""
    intf.ip, intf.prefixLen = address, 32
