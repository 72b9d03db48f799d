"""The WAN switch: joins the centers, delays what passes by (source, target), caps the ingress.

Two of them behind one interface: :class:`NetemSwitch` where the kernel has ``netem``,
:class:`DelaySwitch`, with a process that holds the frames, where it has not.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Any

from testbed.emulated import shaping
from testbed.emulated.commands import inside, run
from testbed.emulated.launch import python_module
from testbed.emulated.mininet_parts import BridgeSwitch, Switch
from testbed.emulated.switch.plan import (
    Crossing,
    Ends,
    Port,
    forwarder_config,
    netem_change_lines,
    netem_lines,
)
from testbed.errors import TestbedError

START_S = 10.0  # how long the forwarder may take to start, or to answer
LAST_WORDS = 300  # characters of a dead forwarder's complaint that are told


class NetemSwitch(BridgeSwitch):
    """A kernel bridge with fixed addresses whose ports delay by netem.

    In an outage netem drops what comes, and lets go on what is under way.

    Args:
      name: of the switch.
      bridge: of the bridge interface.
      ports: of the switch.
      crossings: the links.
      seeded: whether this kernel's netem takes seeds.
    """

    kind = "netem"

    def __init__(
        self,
        name: str,
        *,
        bridge: str,
        ports: Sequence[Port],
        crossings: Sequence[Crossing],
        seeded: bool = False,
        **settings: Any,
    ):
        super().__init__(name, bridge=bridge, **settings)
        self.wan_ports, self.seeded = ports, seeded
        self.crossings = {crossing.ends: crossing for crossing in crossings}
        self._stopped: set[Ends] = set()
        self._impaired = True

    def start(self, controllers: Any) -> None:
        """Builds the bridge, fixes its address table and sets the delays."""
        super().start(controllers)
        table = [
            f"fdb replace {port.mac} dev {port.interface} master static" for port in self.wan_ports
        ]
        fixed = [
            f"link set dev {port.interface} learning off flood off mcast_flood off"
            for port in self.wan_ports
        ]
        run(inside(self.pid, ["bridge", "-batch", "-"]), table + fixed)
        crossings = list(self.crossings.values())
        lines = netem_lines(self.wan_ports, crossings, seeded=self.seeded)
        run(inside(self.pid, ["tc", "-batch", "-"]), lines)

    def hold(self, limits: Mapping[Ends, int]) -> None:
        """Begins an outage of links; see :meth:`DelaySwitch.hold`. Nothing waits here."""
        self._stopped.update(limits)
        self._change(limits)

    def release(self, links: Sequence[Ends]) -> None:
        """Ends the outage of links."""
        self._stopped.difference_update(links)
        self._change(links)

    def impair(self, on: bool) -> None:
        """Switches jitter and loss of all links off, to measure their rates, or on again."""
        self._impaired = on
        self._change([ends for ends, crossing in self.crossings.items() if crossing.impaired])

    def check_alive(self) -> None:
        """The kernel does the work, and does not end."""

    def process_ids(self) -> list[int]:
        """Processes of the switch beside its shell: none."""
        return []

    def counters(self) -> Mapping[str, int]:
        """The kernel counts for itself; nothing to add."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What is recorded about the delays of a run."""
        return {"kind": self.kind, "seeded": self.seeded}

    def _change(self, links: Sequence[Ends] | Mapping[Ends, int]) -> None:
        lines = netem_change_lines(
            self.wan_ports,
            [self.crossings[ends] for ends in links],
            stopped=self._stopped,
            impaired=self._impaired,
            seeded=self.seeded,
        )
        if lines:
            run(inside(self.pid, ["tc", "-batch", "-"]), lines)


class DelaySwitch(Switch):
    """A switch whose forwarder process holds every frame until its release time.

    Args:
      name: of the switch.
      bridge: not used; there is no bridge in here.
      ports: of the switch.
      crossings: the links.
      seeded: not used; the forwarder's draws always are.
    """

    kind = "delay switch"

    def __init__(
        self,
        name: str,
        *,
        bridge: str,  # noqa: ARG002
        ports: Sequence[Port],
        crossings: Sequence[Crossing],
        seeded: bool = True,  # noqa: ARG002
        **settings: Any,
    ):
        super().__init__(name, **{**settings, "inNamespace": True, "dpid": "1"})
        self.wan_ports = ports
        self.crossings = {crossing.ends: crossing for crossing in crossings}
        self.forwarder: subprocess.Popen[bytes] | None = None
        self.scheduling = ""
        self._words: IO[bytes] | None = None  # what the forwarder complains

    def start(self, _controllers: Any) -> None:
        """Caps the ports and starts the forwarder; returns when it forwards."""
        capped = [port for port in self.wan_ports if port.cap is not None]
        lines = [
            line
            for port in capped
            for line in shaping.limit(port.interface, port.cap or 0.0, port.queue)
        ]
        if lines:
            run(inside(self.pid, ["tc", "-batch", "-"]), lines)
        ups = [f"link set {port.interface} up" for port in self.wan_ports]
        run(inside(self.pid, ["ip", "-batch", "-"]), ups)
        argv, environment = python_module("testbed.emulated.switch.forwarder")
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 (closed in terminate)
        self.forwarder = subprocess.Popen(
            inside(self.pid, argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            bufsize=0,
            env=environment,
            start_new_session=True,
        )
        answer = self._ask(forwarder_config(self.wan_ports, list(self.crossings.values())))
        self.scheduling = answer["scheduling"]

    def hold(self, limits: Mapping[Ends, int]) -> None:
        """Begins an outage of links: no packet sets out on them from now on.

        Args:
          limits: the links, as pairs of ports, and how many bytes may wait for the end of the
            outage; more are dropped.
        """
        paths = [(*self._path(ends), limit) for ends, limit in limits.items()]
        self._ask({"do": "hold", "paths": paths})

    def release(self, links: Sequence[Ends]) -> None:
        """Ends the outage of links: what waited sets out at once."""
        self._ask({"do": "release", "paths": [self._path(ends) for ends in links]})

    def impair(self, on: bool) -> None:
        """Switches jitter and loss of all links off, to measure their rates, or on again."""
        self._ask({"do": "impair", "on": on})

    def check_alive(self) -> None:
        """Makes sure that packets pass.

        Raises:
          TestbedError: if the forwarder has ended.
        """
        if self.forwarder is not None and self.forwarder.poll() is not None:
            raise TestbedError(self._epitaph(self.forwarder))

    def process_ids(self) -> list[int]:
        """Processes of the switch beside its shell: the forwarder."""
        return [] if self.forwarder is None else [self.forwarder.pid]

    def counters(self) -> Mapping[str, int]:
        """What the forwarder has counted, see :meth:`forwarder.Forwarder.counters`."""
        return self._ask({"do": "count"})

    def facts(self) -> dict[str, Any]:
        """What is recorded about the delays of a run."""
        return {"kind": self.kind, "scheduling": self.scheduling, "seeded": True}

    def terminate(self) -> None:
        """Ends the forwarder with the switch."""
        if self.forwarder is not None:
            assert self.forwarder.stdin
            assert self.forwarder.stdout
            self.forwarder.kill()
            self.forwarder.wait()
            self.forwarder.stdin.close()
            self.forwarder.stdout.close()
            self.forwarder = None
        if self._words is not None:
            self._words.close()
            self._words = None
        super().terminate()

    def _path(self, ends: Ends) -> tuple[str, str]:
        return self.wan_ports[ends[0]].interface, self.wan_ports[ends[1]].mac

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        if self.forwarder is None:
            raise TestbedError("the WAN's delaying switch does not run; the WAN was taken down")
        assert self.forwarder.stdin
        assert self.forwarder.stdout
        with contextlib.suppress(BrokenPipeError):  # it has ended; the answer below is then empty
            self.forwarder.stdin.write(json.dumps(question).encode() + b"\n")
        ready, _, _ = select.select([self.forwarder.stdout], (), (), START_S)
        line = self.forwarder.stdout.readline() if ready else b""
        if line:
            return json.loads(line)
        if ready:  # its output has ended: so will it
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.forwarder.wait(START_S)
        raise TestbedError(self._epitaph(self.forwarder))

    def _epitaph(self, forwarder: subprocess.Popen[bytes]) -> str:
        """What became of the forwarder, and what follows."""
        code = forwarder.poll()
        if code is None:
            return (
                f"the process that delays the WAN's packets (pid {forwarder.pid}) has not answered "
                f"for {START_S:g} s; the machine is too busy: stop other work and run again"
            )
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        said = ""
        if self._words is not None:
            self._words.seek(0)
            lines = self._words.read().decode(errors="replace").strip().splitlines()
            said = lines[-1][:LAST_WORDS] if lines else ""
        words = f"; its last words: {said}" if said else ""
        return (
            f"the process that delays the WAN's packets (pid {forwarder.pid}) {how}, so nothing "
            f"passes between centers any more{words}. Run again; if nobody ended it on purpose, "
            "see whether memory ran out (`dmesg`)"
        )
