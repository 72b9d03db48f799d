"""From a WAN description to interfaces, addresses, routes and rates; pure, nothing is run here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise

from geojax.overlay.view import Edge
from testbed.emulated import naming, shaping
from testbed.emulated.switch.plan import Crossing, Ends, Port
from testbed.errors import TestbedError
from testbed.wan.types import Center, Wan

LAN_QUEUE_S = 5e-3  # a LAN port buffers so much, in time at its rate
SMALLEST_RECEIVE_BUFFER = 6 << 20  # the kernel's own bounds of TCP's automatic buffers
SMALLEST_SEND_BUFFER = 4 << 20
ONE_PACKET_A_FRAME = "gso_max_segs 1"  # no super-packets: each packet is lost on its own
NEIGHBOUR = "lladdr {mac} dev {device} nud permanent"


class Layout:
    """Who has which interface, address, route and rate.

    Args:
      wan: the description.
      prefix: of the run's interface names, see :func:`naming.tag`.

    Raises:
      TestbedError: if the WAN is too large for the address plan, or a rate too small for HTB.
    """

    def __init__(self, wan: Wan, prefix: str):
        if len(wan.centers) > naming.MAX_CENTERS:
            raise TestbedError(
                f"{len(wan.centers)} centers: at most {naming.MAX_CENTERS} can be emulated; "
                "testbed=simulated takes more"
            )
        self.wan, self.prefix = wan, prefix
        self.index = {name: index for index, name in enumerate(wan.center_names)}
        self.links = {link.edge: link for link in wan.links}
        self.routes = wan.routes()
        for center in wan.centers:
            if center.workers > naming.MAX_WORKERS:
                raise TestbedError(
                    f"center {center.name}: {center.workers} workers; at most "
                    f"{naming.MAX_WORKERS} can be emulated"
                )
            for name, cap in (("egress", center.egress), ("ingress", center.ingress)):
                if cap is not None:
                    check_rate(f"{name} cap of center {center.name}", cap)
        for link in wan.links:
            check_rate(f"link {' -> '.join(link.edge)}", link.rate)

    def interface(self, kind: str, center: str, worker: int | None = None) -> str:
        """An interface's name, see :func:`naming.interface`."""
        return naming.interface(self.prefix, kind, self.index[center], worker)

    def has_lan(self, center: Center) -> bool:
        """Whether the center's workers have hosts of their own."""
        return center.workers > 1

    def neighbours(self, center: str) -> list[str]:
        """Centers that it has a link to, in WAN order."""
        return [other for other in self.index if (center, other) in self.links]

    @cached_property
    def addresses(self) -> dict[str, str]:
        """The address of every node of a run, and of every gateway."""
        found = {"scheduler": naming.wan_address(self.index[self.wan.server_center])}
        for center in self.wan.centers:
            index = self.index[center.name]
            found[center.name] = naming.wan_address(index)
            if self.has_lan(center):
                for worker in range(center.workers):
                    found[f"{center.name}/w{worker}"] = naming.lan_address(index, worker)
        for node in self.wan.nodes():
            if node.role == "global":  # all of them on the gateway of their site
                found[node.name] = found[node.center]
        return found

    def gateway_lines(self, center: Center) -> list[str]:
        """The ``ip -batch`` commands of a center's gateway."""
        own = naming.wan_address(self.index[center.name])
        device = self.interface("w", center.name) if self.wan.links else "lo"
        lines = ["link set lo up", f"addr add {own}/32 dev {device}"]
        if self.has_lan(center):
            lines += self._lan_lines(center, None)
        if not self.wan.links:
            return lines
        lossy = any(self.links[center.name, o].loss for o in self.neighbours(center.name))
        lines.append(f"link set {device} up" + (f" {ONE_PACKET_A_FRAME}" if lossy else ""))
        for other in self.neighbours(center.name):
            there = self.index[other]
            address, mac = naming.wan_address(there), naming.wan_mac(there)
            lines += [
                f"neigh add {address} {NEIGHBOUR.format(mac=mac, device=device)}",
                f"route add {address}/32 dev {device} scope link",
            ]
        for other in self.wan.centers:
            if other.name == center.name:
                continue
            hop = naming.wan_address(self.index[self.routes[center.name, other.name][1]])
            there = self.index[other.name]
            if (center.name, other.name) not in self.links:
                address = naming.wan_address(there)
                lines.append(f"route add {address}/32 via {hop} dev {device} onlink src {own}")
            if self.has_lan(other):
                network = naming.lan_network(there)
                lines.append(f"route add {network} via {hop} dev {device} onlink src {own}")
        return lines

    def worker_lines(self, center: Center, worker: int) -> list[str]:
        """The ``ip -batch`` commands of a worker's host."""
        gateway = naming.lan_address(self.index[center.name])
        return [
            "link set lo up",
            *self._lan_lines(center, worker),
            f"route add default via {gateway}",
        ]

    def branches(self, center: str, rates: Mapping[Edge, float]) -> dict[str, shaping.Branch]:
        """A center's directed links as classes of its WAN interface, by neighbour."""
        return {
            other: shaping.Branch(
                shaping.FIRST_MINOR + number,
                naming.wan_mac(self.index[other]),
                rates[center, other],
                self.longest_rtt[center, other],
            )
            for number, other in enumerate(self.neighbours(center))
        }

    def ports(self) -> list[Port]:
        """The WAN switch's ports, in the order of the centers."""
        longest = dict.fromkeys(self.wan.center_names, 0.0)  # rtt into each center, s
        for edge in self.links:
            longest[edge[1]] = max(longest[edge[1]], self.rtt(edge))
        return [
            Port(
                self.interface("s", center.name),
                naming.wan_mac(self.index[center.name]),
                center.ingress,
                shaping.queue_bytes(center.ingress or 0.0, longest[center.name]),
            )
            for center in self.wan.centers
        ]

    def crossings(self, seed: int) -> list[Crossing]:
        """The directed links as the switch sees them; each draws from a stream of its own."""
        return [
            Crossing(
                *self.ends(link.edge),
                link.delay,
                link.rate,
                link.jitter,
                link.jitter_distribution,
                link.loss,
                f"{seed}/{link.source}>{link.target}",
            )
            for link in self.wan.links
        ]

    def ends(self, edge: Edge) -> Ends:
        """The switch's ports at both ends of a link."""
        return self.index[edge[0]], self.index[edge[1]]

    def waiting_room(self, edge: Edge, rate: float) -> int:
        """Bytes that may wait for a link: at its rate (bit/s), and in an outage."""
        return shaping.queue_bytes(rate, self.longest_rtt[edge])

    def delay(self, edge: Edge) -> float:
        """One-way delay between two centers on their route, s."""
        path = self.routes[edge]
        return sum(self.links[hop].delay for hop in pairwise(path))

    @cached_property
    def longest_rtt(self) -> dict[Edge, float]:
        """For every link the longest round trip of a route that crosses it, s; sizes its queue."""
        longest = dict.fromkeys(self.links, 0.0)
        for pair, path in self.routes.items():
            round_trip = self.rtt(pair)
            for hop in pairwise(path):
                longest[hop] = max(longest[hop], round_trip)
        return longest

    def rtt(self, edge: Edge) -> float:
        """There and back on the routes, s."""
        return self.delay(edge) + self.delay((edge[1], edge[0]))

    def single_flow_rate(self, edge: Edge, rates: Mapping[Edge, float]) -> float:
        """What a link can carry when nothing else does: its rate or an access cap, bit/s."""
        source, target = (self.wan.centers[self.index[name]] for name in edge)
        caps = [cap for cap in (source.egress, target.ingress) if cap is not None]
        return min([rates[edge], *caps])

    def capped(self, edge: Edge) -> bool:
        """Whether an end of a link has an access cap."""
        ends = (self.wan.centers[self.index[name]] for name in edge)
        return any(end.egress is not None or end.ingress is not None for end in ends)

    def lan_limit(self, center: Center, interface: str) -> list[str]:
        """The tc commands that shape one end of a LAN wire."""
        queue = max(shaping.SMALLEST_QUEUE, round(center.lan_rate * LAN_QUEUE_S / 8))
        return shaping.limit(interface, center.lan_rate, queue)

    def tcp_buffers(self) -> dict[str, str]:
        """Bounds of TCP's automatic buffers: four times the largest bandwidth-delay product."""
        longest = max((self.rtt(edge) for edge in self.routes), default=0.0)
        fastest = max((link.rate for link in self.wan.links), default=0.0)
        enough = 4 * round(fastest * longest / 8)
        return {
            "net.ipv4.tcp_rmem": f"4096 131072 {max(SMALLEST_RECEIVE_BUFFER, enough)}",
            "net.ipv4.tcp_wmem": f"4096 16384 {max(SMALLEST_SEND_BUFFER, enough)}",
        }

    def _lan_lines(self, center: Center, own: int | None) -> list[str]:
        """Address, and every other host of the LAN as a fixed neighbour."""
        index = self.index[center.name]
        device = self.interface("l", center.name, own)
        lines = [
            f"addr add {naming.lan_address(index, own)}/24 dev {device}",
            f"link set {device} up",
        ]
        for worker in (None, *range(center.workers)):
            if worker != own:
                mac = naming.lan_mac(index, worker)
                address = naming.lan_address(index, worker)
                lines.append(f"neigh add {address} {NEIGHBOUR.format(mac=mac, device=device)}")
        return lines


def check_rate(what: str, rate: float, smallest: float = shaping.SMALLEST_RATE) -> None:
    """Refuses rates that HTB cannot make.

    Raises:
      TestbedError: with the smallest possible rate.
    """
    if not smallest <= rate <= shaping.UNLIMITED:
        raise TestbedError(
            f"{what}: {rate:g} bit/s cannot be emulated; "
            f"give {smallest:g} to {shaping.UNLIMITED:g} bit/s (mind wan.bandwidth_scale)"
        )
