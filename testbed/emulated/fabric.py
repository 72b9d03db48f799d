"""The hosts, switches and wires of one emulated WAN: made with Mininet, configured by ourselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from geojax.overlay.view import Edge
from testbed.emulated import naming, probe, shaping
from testbed.emulated.commands import inside, run, wait_until, wires_up
from testbed.emulated.layout import Layout
from testbed.emulated.mininet_parts import BridgeSwitch, Host, Net, addressed
from testbed.emulated.switch.switches import DelaySwitch, NetemSwitch
from testbed.errors import TestbedError
from testbed.wan.types import Center

WIRES_UP_S = 10.0
IPV6 = Path("/proc/sys/net/ipv6")
SYSCTLS = {  # of every namespace of the run, read back after they were written
    "net.ipv4.tcp_slow_start_after_idle": "0",  # the window survives a local step
    "net.ipv4.tcp_no_metrics_save": "1",  # no connection inherits another one's estimates
}
PER_INTERFACE = {  # of gateways: all, and each of their interfaces (the kernel heeds both)
    "rp_filter": "0",  # routes there and back may differ
    "send_redirects": "0",  # that a path goes in and out by one interface is no mistake here
    "accept_redirects": "0",
}
NO_IPV6 = {
    "net.ipv6.conf.all.disable_ipv6": "1",
    "net.ipv6.conf.default.disable_ipv6": "1",
}


class Fabric:
    """The network namespaces of a run and what joins them.

    Args:
      layout: what to make.
      hold: is told the process that holds a new namespace, at once, so that it cannot be lost.
      seed: of all random losses and delays.

    Attributes:
      net: Mininet's own view, for its command line.
      wan_switch: what delays and caps; None in a WAN without links.
      sysctls: kernel settings of the namespaces, as read back.
    """

    def __init__(self, layout: Layout, hold: Callable[[int], None], seed: int):
        self.layout = layout
        self._seed = seed
        self.net: Any = Net(host=Host)  # Mininet has no useful types
        self.wan_switch: NetemSwitch | DelaySwitch | None = None
        self.sysctls: dict[str, str] = {}
        self._hold = hold
        self._pids: dict[str, int] = {}  # host or switch -> shell that holds its namespace

    def pid(self, host: str) -> int:
        """The process whose namespaces are those of a host."""
        return self._pids[host]

    def make(self) -> None:
        """Makes hosts, switches and wires."""
        layout = self.layout
        for center in layout.wan.centers:
            self._keep(self.net.addHost(center.name))
            if layout.has_lan(center):
                self._make_lan(center)
        if not layout.wan.links:
            return
        self.wan_switch = self.net.addSwitch(
            f"{layout.prefix}-wan",
            cls=NetemSwitch if probe.has_netem() else DelaySwitch,
            bridge=f"{layout.prefix}-bw",
            ports=layout.ports(),
            crossings=layout.crossings(self._seed),
            seeded=probe.has_netem_seed(),
        )
        self._keep(self.wan_switch)
        for index, center in enumerate(layout.wan.centers):
            ends = (layout.interface("w", center.name), layout.interface("s", center.name))
            self._wire(center.name, self.wan_switch, *ends, naming.wan_mac(index))

    def configure(self, rates: Mapping[Edge, float]) -> None:
        """Sets sysctls, addresses, routes and rates (bit/s) of every namespace."""
        layout = self.layout
        for name in self._pids:
            self._write_sysctls(name)
        for center in layout.wan.centers:
            self.batch(center.name, "ip", layout.gateway_lines(center))
            lines = []
            branches = layout.branches(center.name, rates)
            if branches:
                device = layout.interface("w", center.name)
                lines = shaping.egress(device, list(branches.values()), center.egress)
            if layout.has_lan(center):
                self._configure_lan(center)
                lines += layout.lan_limit(center, layout.interface("l", center.name))
            self.batch(center.name, "tc", lines)

    def start(self) -> None:
        """Starts the switches and waits until every wire carries packets."""
        self.net.start()
        for host, pid in self._pids.items():
            wait_until(partial(wires_up, pid), f"the wires of {host}", WIRES_UP_S)

    def batch(self, host: str, tool: str, lines: Sequence[str]) -> None:
        """Gives ``ip`` or ``tc`` a batch of commands in a host's namespace."""
        if lines:
            run(inside(self.pid(host), [tool, "-batch", "-"]), lines)

    def dismiss(self) -> None:
        """Lets go of the hosts' terminals; their processes have ended by now."""
        for node in [*self.net.hosts, *self.net.switches]:
            node.terminate()

    def _make_lan(self, center: Center) -> None:
        lan = self.net.addSwitch(
            self._lan_name(center),
            cls=BridgeSwitch,
            bridge=self.layout.interface("b", center.name),
        )
        self._keep(lan)
        self._wire(center.name, lan, *self._lan_ends(center, None))
        for worker in range(center.workers):
            host = self.net.addHost(f"{center.name}/w{worker}")
            self._keep(host)
            self._wire(host.name, lan, *self._lan_ends(center, worker))

    def _configure_lan(self, center: Center) -> None:
        layout = self.layout
        ports = layout.lan_limit(center, layout.interface("p", center.name))
        for worker in range(center.workers):
            host = f"{center.name}/w{worker}"
            self.batch(host, "ip", layout.worker_lines(center, worker))
            device = layout.interface("l", center.name, worker)
            self.batch(host, "tc", layout.lan_limit(center, device))
            ports += layout.lan_limit(center, layout.interface("p", center.name, worker))
        self.batch(self._lan_name(center), "tc", ports)

    def _write_sysctls(self, name: str) -> None:
        """Writes the settings of a namespace, reads them back and notes them."""
        wanted = {**SYSCTLS, **self.layout.tcp_buffers(), **(NO_IPV6 if IPV6.is_dir() else {})}
        if name in self.layout.index:
            wanted["net.ipv4.ip_forward"] = "1"
            for interface in ("all", *self.net[name].intfNames()):
                for key, value in PER_INTERFACE.items():
                    wanted[f"net.ipv4.conf.{interface}.{key}"] = value
        pid = self.pid(name)
        written = [f"{key}={value}" for key, value in wanted.items()]
        run(inside(pid, ["sysctl", "-q", "-w", *written]))
        read = run(inside(pid, ["sysctl", "-n", *wanted])).splitlines()
        found = {key: " ".join(line.split()) for key, line in zip(wanted, read, strict=True)}
        if found != wanted:
            wrong = {key: found[key] for key in wanted if found[key] != wanted[key]}
            raise TestbedError(
                f"host {name}: sysctls keep other values than written: {wrong}; a container may "
                "forbid them: run with the right to set net.* in network namespaces"
            )
        self.sysctls |= {key: found[key] for key in found if self.layout.prefix not in key}

    def _keep(self, node: Any) -> None:
        self._pids[node.name] = node.pid
        self._hold(node.pid)

    def _wire(self, host: str, switch: Any, near: str, far: str, mac: str) -> None:
        link = self.net.addLink(
            self.net[host], switch, intfName1=near, intfName2=far, addr1=mac, fast=True
        )
        addressed(link.intf1, self.layout.addresses[host])

    def _lan_name(self, center: Center) -> str:
        return f"{self.layout.prefix}-lan-{center.name}"

    def _lan_ends(self, center: Center, worker: int | None) -> tuple[str, str, str]:
        near, far = (self.layout.interface(kind, center.name, worker) for kind in "lp")
        return near, far, naming.lan_mac(self.layout.index[center.name], worker)
