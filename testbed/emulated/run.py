"""One run of real processes over a WAN in Mininet: ``testbed=emulated``."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from geojax.assemble import Setup
from testbed.emulated.measure import verify
from testbed.emulated.wan import EmulatedWan
from testbed.faults import Fault
from testbed.local.processes import Processes, Reports, Sink, Spans
from testbed.wan.build import Wan

_BASE_PORT = 7100


def run_emulated(
    setup: Setup,
    wan: Wan,
    faults: tuple[Fault, ...],
    run_dir: Path,
    sink: Sink,
    say: Callable[[str], None],
) -> tuple[Reports, Spans, dict[str, Any]]:
    """Makes the WAN, measures its links, and runs every node on its host.

    Returns:
      The reports of the nodes that lived to write one, the spans of these, and figures of this
      testbed alone. ``wan.json`` in the run's directory tells what the links measured.

    Raises:
      GeojaxError: the WAN or a CPU limit is not as configured, or a node failed.
    """
    config, testbed = setup.config, setup.config.testbed
    say("setting up the WAN")
    seed = config.seed if config.wan.seed is None else config.wan.seed
    with EmulatedWan(wan, congestion_control=testbed.congestion_control, seed=seed) as emulated:
        say("measuring every link")
        checks = emulated.measure(testbed.verify_tolerance)
        measured = {
            "tolerance": testbed.verify_tolerance,
            "links": [check._asdict() for check in checks],
            "testbed": emulated.facts,
        }
        (run_dir / "wan.json").write_text(json.dumps(measured, indent=2))
        verify.refuse(checks, testbed.verify_tolerance)
        processes = Processes(setup, wan, faults, run_dir, emulated, sink, _ports())
        before = emulated.link_bytes()
        reports, spans = processes.run(say)
        after = emulated.link_bytes()
        measured["switch"] = emulated.switch_counters()
    measured["kernel_link_bytes"] = {f"{a}>{b}": after[a, b] - before[a, b] for a, b in after}
    (run_dir / "wan.json").write_text(json.dumps(measured, indent=2))
    goodput = {"goodput_factor": verify.goodput_factor(checks)} if checks else {}
    return reports, spans, {**processes.figures(), **goodput}


def _ports() -> Generator[int, None, None]:
    """Ports in namespaces of our own, where nobody else listens."""
    yield from range(_BASE_PORT, 65_536)
