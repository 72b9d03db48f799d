"""The WAN switch: joins the centers, delays what passes by (source, target), caps the ingress.

Two of them behind one interface: :class:`NetemSwitch` where the kernel has ``netem``,
:class:`DelaySwitch`, with a process that holds the frames, where it has not.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from testbed.emulated import shaping
from testbed.emulated.commands import inside, run
from testbed.emulated.errors import TestbedError
from testbed.emulated.launch import python_module
from testbed.emulated.mininet_parts import BridgeSwitch, Switch
from testbed.emulated.switches_plan import Crossing, Port, forwarder_config, netem_lines

START_S = 10.0  # how long the forwarder may take to start


class NetemSwitch(BridgeSwitch):
    """A kernel bridge with fixed addresses whose ports delay by netem."""

    kind = "netem"

    def __init__(
        self,
        name: str,
        *,
        bridge: str,
        ports: Sequence[Port],
        crossings: Sequence[Crossing],
        **settings: Any,
    ):
        super().__init__(name, bridge=bridge, **settings)
        self.wan_ports, self.crossings = ports, crossings

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
        run(inside(self.pid, ["tc", "-batch", "-"]), netem_lines(self.wan_ports, self.crossings))

    def process_ids(self) -> list[int]:
        """Processes of the switch beside its shell: none."""
        return []

    def counters(self) -> Mapping[str, int]:
        """The kernel counts for itself; nothing to add."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What is recorded about the delays of a run."""
        return {"kind": self.kind}


class DelaySwitch(Switch):
    """A switch whose forwarder process holds every frame until its release time."""

    kind = "delay switch"

    def __init__(
        self,
        name: str,
        *,
        bridge: str,  # noqa: ARG002 (no bridge in here)
        ports: Sequence[Port],
        crossings: Sequence[Crossing],
        **settings: Any,
    ):
        super().__init__(name, **{**settings, "inNamespace": True, "dpid": "1"})
        self.wan_ports, self.crossings = ports, crossings
        self.forwarder: subprocess.Popen[bytes] | None = None
        self.scheduling = ""

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
        argv, environment = python_module("testbed.emulated.forwarder")
        self.forwarder = subprocess.Popen(
            inside(self.pid, argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
            start_new_session=True,
        )
        config = json.dumps(forwarder_config(self.wan_ports, self.crossings))
        answer = self._ask(config.encode() + b"\n")
        self.scheduling = answer["scheduling"]

    def process_ids(self) -> list[int]:
        """Processes of the switch beside its shell: the forwarder."""
        return [] if self.forwarder is None else [self.forwarder.pid]

    def counters(self) -> Mapping[str, int]:
        """What the forwarder has counted, see :meth:`forwarder.Forwarder.counters`."""
        return self._ask(b"?")

    def facts(self) -> dict[str, Any]:
        """What is recorded about the delays of a run."""
        return {"kind": self.kind, "scheduling": self.scheduling}

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
        super().terminate()

    def _ask(self, question: bytes) -> dict[str, Any]:
        assert self.forwarder
        assert self.forwarder.stdin
        assert self.forwarder.stdout
        with contextlib.suppress(BrokenPipeError):  # it has ended; the answer below is then empty
            self.forwarder.stdin.write(question)
        ready, _, _ = select.select([self.forwarder.stdout], (), (), START_S)
        line = self.forwarder.stdout.readline() if ready else b""
        if not line:
            code = self.forwarder.poll()
            state = "does not answer" if code is None else f"ended with status {code}"
            raise TestbedError(f"the delaying switch's forwarder {state}; its words are above")
        return json.loads(line)
