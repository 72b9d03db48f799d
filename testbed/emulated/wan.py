"""The emulated WAN as one object: start it, run processes in it, measure it, change it, stop it."""

from __future__ import annotations

import os
import platform
import re
import secrets
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from geojax.overlay.view import Edge
from testbed.emulated import naming, probe, shaping
from testbed.emulated.cleanup.guard import Guard, uninterrupted
from testbed.emulated.cleanup.state import RunState
from testbed.emulated.cleanup.teardown import tear_down
from testbed.emulated.commands import inside, run
from testbed.emulated.layout import Layout, check_rate
from testbed.emulated.measure import verify
from testbed.emulated.measure.verify import LinkCheck
from testbed.errors import TestbedError
from testbed.pids import identify
from testbed.wan.types import Wan

if TYPE_CHECKING:  # it imports Mininet, which is asked for only when a WAN is started
    from testbed.emulated.fabric import Fabric
    from testbed.emulated.mininet_parts import Net
    from testbed.emulated.switch.switches import DelaySwitch, NetemSwitch


class EmulatedWan:
    """A WAN of network namespaces, shaped wires and real processes on this machine.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`. Whatever happens to the
    process, what it made is removed: see :mod:`testbed.emulated.cleanup.teardown`.

    Args:
      wan: what to emulate.
      congestion_control: TCP congestion control of the measuring connections; the run's own
        processes set theirs per socket.
      run_id: names the run's record and, shortened, its interfaces; None: a random one.
      seed: of all random losses and delays.
      log: is told, in one line each, what happens.

    Attributes:
      facts: JSON-ready record of the choices: how delays are made, sysctls as read back,
        congestion control, kernel.
    """

    def __init__(
        self,
        wan: Wan,
        *,
        congestion_control: str = "cubic",
        run_id: str | None = None,
        seed: int = 0,
        log: Callable[[str], None] = lambda _line: None,
    ):
        self.wan = wan
        self.run_id = secrets.token_hex(4) if run_id is None else run_id
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", self.run_id):
            raise TestbedError(f"run id {run_id!r}: use up to 64 letters, digits, '_', '.', '-'")
        self.congestion_control = congestion_control
        self.facts: dict[str, Any] = {}
        self._log = log
        self._seed = seed
        self._layout = Layout(wan, naming.tag(self.run_id))
        self._rates = {link.edge: link.rate for link in wan.links}  # the latest that HTB was given
        self._stopped: dict[Edge, None] = {}  # links in an outage
        self._homes = {  # a worker has a host of its own, all others live on the gateway
            place.name: place.name if place.role == "worker" else place.center
            for place in wan.nodes()
        }
        for gateway in wan.center_names:
            self._homes.setdefault(gateway, gateway)
        self._processes: list[subprocess.Popen] = []
        self._fabric: Fabric | None = None
        self._state: RunState | None = None
        self._guard: Guard | None = None

    def __enter__(self) -> EmulatedWan:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Makes the WAN; when this returns, every center reaches every other one.

        Raises:
          TestbedError: if this machine cannot do it, or a command fails; nothing is left then.
        """
        if self._state is not None:
            raise TestbedError("this WAN is already up; stop() it first")
        reason = probe.why_not()
        if reason is not None:
            raise TestbedError(f"no emulated WAN: {reason}")
        available = probe.available_congestion_controls()
        if self.congestion_control not in available:
            raise TestbedError(
                f"congestion control {self.congestion_control!r} is not in this kernel; "
                f"available: {', '.join(available)} (try `modprobe tcp_{self.congestion_control}`)"
            )
        from testbed.emulated.fabric import Fabric

        owner = identify(os.getpid())
        assert owner is not None
        self._state = RunState(self.run_id, self._layout.prefix, owner)
        if self._state.path.exists():
            path, self._state = self._state.path, None
            raise TestbedError(
                f"run id {self.run_id!r} is in use ({path}); `python -m testbed down` removes "
                "what stopped runs left"
            )
        self._state.save()
        try:
            self._guard = Guard(self._state, self.stop)
            self._fabric = Fabric(self._layout, self._state.add_shell, self._seed)
            with uninterrupted():  # between a host's start and its record
                self._fabric.make()
            self._fabric.configure(self._rates)
            self._fabric.start()
            switch = self._fabric.wan_switch
            for pid in switch.process_ids() if switch else ():
                self._state.add_other(pid)
            self._record(self._fabric, available)
        except BaseException:
            self.stop()
            raise
        delay = self.facts["delay"]["kind"]
        self._log(f"WAN {self.wan.name} is up (run {self.run_id}, delays by {delay})")

    def stop(self) -> None:
        """Ends all processes, namespaces and interfaces of the run; harmless when repeated.

        Raises:
          TestbedError: if something could not be removed; names it.
        """
        if self._state is None:
            return
        with uninterrupted():
            complaints = tear_down(self._state)
            for process in self._processes:
                process.poll()  # reaps what tear_down has ended
            if self._fabric is not None:
                self._fabric.dismiss()
            self._processes.clear()
            self._fabric = self._state = None
        if self._guard is not None:
            self._guard.release()
            self._guard = None
        if complaints:
            raise TestbedError(
                f"run {self.run_id} is not all gone: {'; '.join(complaints)}; "
                f"`python -m testbed down {self.run_id}` tries again"
            )
        self._log(f"WAN {self.wan.name} is down")

    @property
    def net(self) -> Net:
        """Mininet's own view of the running WAN, for its command line."""
        return self._up().net

    def address(self, node: str) -> str:
        """The IPv4 address under which all other nodes reach a node (``scheduler``, ``c1/w0``)."""
        return self._layout.addresses[self._known(node)]

    def popen(self, node: str, argv: Sequence[str], **settings: Any) -> subprocess.Popen:
        """Starts a process on a node's host.

        It gets a session of its own, so Ctrl-C reaches only this process, which then ends the
        others; :meth:`stop` ends whatever still runs: SIGTERM, after 2 s SIGKILL.

        Args:
          node: a node of the WAN.
          argv: the command.
          **settings: as of :class:`subprocess.Popen`.
        """
        host = self._homes[self._known(node)]
        settings.setdefault("start_new_session", True)
        process = subprocess.Popen(inside(self._up().pid(host), argv), **settings)
        self._processes.append(process)
        assert self._state is not None
        self._state.add_other(process.pid)
        return process

    def measure(self, tolerance: float, edges: Iterable[Edge] | None = None) -> list[LinkCheck]:
        """Measures rate and round-trip time of every directed link, with nothing else running.

        A link's rate is the goodput of one TCP flow between neighbours; expected is
        ``verify.GOODPUT_FACTOR`` (0.95) times its rate, or the smaller access cap of its ends.
        Links that do not disturb each other are measured together; one that is off is measured
        once more, alone. Jitter and loss are switched off meanwhile. Links in an outage are left
        out.

        Args:
          tolerance: relative error of a rate from which on it is measured again, e.g. 0.15.
          edges: only these links; None: all.
        """
        targets = [
            verify.Target(
                edge,
                self._layout.single_flow_rate(edge, self._rates),
                self._layout.rtt(edge),
                self._layout.addresses[edge[1]],
                self._layout.capped(edge),
            )
            for edge in (self._rates if edges is None else edges)
            if edge not in self._stopped
        ]
        if not targets:
            return []
        with self._unimpaired():
            return verify.measure(targets, self.popen, self.congestion_control, tolerance)

    def verify(self, tolerance: float, edges: Iterable[Edge] | None = None) -> list[LinkCheck]:
        """Measures links as :meth:`measure` does, and makes sure that they are as configured.

        Args:
          tolerance: largest relative error of a rate; a round trip may be off by as much, or by
            3 ms.
          edges: only these links; None: all.

        Raises:
          TestbedError: with a table of the links that are off.
        """
        checks = self.measure(tolerance, edges)
        verify.refuse(checks, tolerance)
        if checks:
            worst = max(abs(check.rate_error()) for check in checks)
            self._log(f"{len(checks)} links verified; largest deviation of a rate {worst:.1%}")
        return checks

    def change(self, rates: Mapping[Edge, float]) -> None:
        """Gives links new rates (bit/s) in place: what is queued or under way is kept.

        A rate below ``shaping.SMALLEST_RATE`` (8 kbit/s), 0 above all, is an outage: no packet sets
        out on the link until it has a higher rate again, and then has that rate at once. The
        delaying switch keeps what comes meanwhile, up to the link's queue; netem drops it.

        Raises:
          TestbedError: for a pair that has no link, or a rate that cannot be made.
        """
        for edge, rate in rates.items():
            name = f"link {' -> '.join(edge)}"
            if edge not in self._rates:
                known = ", ".join(" -> ".join(known) for known in self._rates) or "none"
                raise TestbedError(f"no {name} in WAN {self.wan.name}; its links: {known}")
            check_rate(name, rate, smallest=0.0)
        flowing = {edge: rate for edge, rate in rates.items() if rate >= shaping.SMALLEST_RATE}
        self._stop_links([edge for edge in rates if edge not in flowing])
        self._shape(flowing)
        self._start_links([edge for edge in flowing if edge in self._stopped])

    def check_alive(self) -> None:
        """Makes sure that what carries the packets is still there; costs next to nothing.

        Raises:
          TestbedError: if it has ended; says what that was and what to do.
        """
        switch = self._up().wan_switch
        if switch is not None:
            switch.check_alive()

    def link_bytes(self) -> dict[Edge, int]:
        """Bytes that each directed link has carried, Ethernet headers included (14 a packet)."""
        found = {}
        for center in self.wan.centers:
            branches = self._layout.branches(center.name, self._rates)
            if not branches:
                continue
            device = self._layout.interface("w", center.name)
            shown = run(
                inside(self._up().pid(center.name), ["tc", "-s", "class", "show", "dev", device])
            )
            sent = shaping.sent_bytes(shown)
            for other, branch in branches.items():
                found[center.name, other] = sent[branch.minor]
        return {edge: found[edge] for edge in self._rates}

    def switch_counters(self) -> dict[str, int]:
        """What the delaying switch has counted; empty when netem makes the delays."""
        switch = self._up().wan_switch
        return dict(switch.counters()) if switch else {}

    def _shape(self, rates: Mapping[Edge, float]) -> None:
        self._rates.update(rates)
        for center in self.wan.centers:
            branches = self._layout.branches(center.name, self._rates)
            changed = [branches[other] for source, other in rates if source == center.name]
            if changed:
                device = self._layout.interface("w", center.name)
                lines = shaping.change(device, changed, center.egress, len(branches))
                self._up().batch(center.name, "tc", lines)

    def _stop_links(self, edges: Sequence[Edge]) -> None:
        """Holds links by the switch: a rate near 0 would leave HTB in debt for a minute."""
        fresh = [edge for edge in edges if edge not in self._stopped]
        if fresh:
            room = self._layout.waiting_room
            limits = {self._layout.ends(edge): room(edge, self._rates[edge]) for edge in fresh}
            self._wan_switch().hold(limits)
            self._stopped.update(dict.fromkeys(fresh))

    def _start_links(self, edges: Sequence[Edge]) -> None:
        if edges:
            self._wan_switch().release([self._layout.ends(edge) for edge in edges])
            for edge in edges:
                del self._stopped[edge]

    @contextmanager
    def _unimpaired(self) -> Iterator[None]:
        """Without jitter and loss, if any link has them."""
        if not any(link.jitter or link.loss for link in self.wan.links):
            yield
            return
        self._wan_switch().impair(False)
        try:
            yield
        finally:
            self._wan_switch().impair(True)

    def _wan_switch(self) -> NetemSwitch | DelaySwitch:
        switch = self._up().wan_switch
        assert switch is not None  # there is one in every WAN with links
        return switch

    def switch_process(self) -> int | None:
        """The process that delays the packets; None when the kernel does it by netem."""
        switch = self._up().wan_switch
        return next(iter(switch.process_ids()), None) if switch else None

    def _record(self, fabric: Fabric, available: Sequence[str]) -> None:
        self.facts |= {
            "run_id": self.run_id,
            "delay": fabric.wan_switch.facts() if fabric.wan_switch else {"kind": "none"},
            "sysctl": fabric.sysctls,
            "congestion_control": self.congestion_control,
            "congestion_controls_available": list(available),
            "goodput_factor": verify.GOODPUT_FACTOR,
            "kernel": platform.release(),
        }

    def _up(self) -> Fabric:
        if self._fabric is None:
            raise TestbedError(f"WAN {self.wan.name} is not up; start() it first")
        return self._fabric

    def _known(self, node: str) -> str:
        if node not in self._homes:
            raise TestbedError(f"no node {node!r}; nodes: {', '.join(self._homes)}")
        return node
