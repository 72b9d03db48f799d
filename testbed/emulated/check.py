"""``python -m testbed check``: what this machine can emulate, and which limits follow."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from testbed.emulated import probe
from testbed.local import cpu_limits


def findings() -> dict[str, Any]:
    """Everything that emulation depends on, JSON-ready; None where it cannot be told."""
    reason = probe.why_not()
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    linux = platform.system() == "Linux"
    netem = probe.has_netem() if linux and root and shutil.which("unshare") else None
    groups = cpu_limits.find_hierarchy()
    no_limits = cpu_limits.why_not(groups)
    found = {
        "emulation": reason is None,
        "why_not": reason,
        "system": f"{platform.system()} {platform.release()}",
        "root": root,
        "commands": {tool: shutil.which(tool) for tool in probe.TOOLS},
        "mininet_module": probe.missing_module() is None,
        "netem": netem,
        "delay_by": None if netem is None else "netem" if netem else "delay switch",
        "open_vswitch": shutil.which("ovs-vsctl") is not None,  # not used
        "congestion_controls": probe.available_congestion_controls(),
        "cpu_limits": f"cgroup v{groups.version}" if groups and not no_limits else None,
        "why_no_cpu_limits": no_limits,
        "cores": os.cpu_count(),
    }
    return {**found, "limits": limits(found)}


def limits(found: dict[str, Any]) -> list[str]:
    """What follows from the findings for the user, in words.

    >>> found = {"emulation": False, "delay_by": None, "congestion_controls": ["reno"], "cores": 2}
    >>> limits({**found, "cpu_limits": "cgroup v2"})
    ['only testbed=simulated and testbed=local work here', 'congestion control cubic is missing']
    """
    words = []
    if not found["emulation"]:
        words.append("only testbed=simulated and testbed=local work here")
    if found["delay_by"] == "delay switch":
        words.append(
            "no netem: a userspace switch delays the packets; count on about 2 Gbit/s in total "
            "over all links, and on 0.3 to 0.45 of a core of work at 9 x 95 Mbit/s; centers with a "
            "lossy link send packet by packet, of which it can forward about 0.4 Gbit/s"
        )
    if found["cpu_limits"] is None:
        words.append("testbed.cpu_limit does not work here; pace profiles do")
    if "cubic" not in found["congestion_controls"]:
        words.append("congestion control cubic is missing")
    if found["emulation"] and (found["cores"] or 1) < 2:
        words.append("one core: node processes and the WAN share it, so keep rates low")
    return words


def main(argv: Sequence[str]) -> int:
    """Runs ``check``; 0 if emulation works here, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed check",
        description="Say what this machine can emulate; status 0 if emulation works here.",
    )
    parser.add_argument("--format", choices=("rich", "json"), default="rich")
    options = parser.parse_args(list(argv))
    found = findings()
    if options.format == "json":
        print(json.dumps(found, indent=2))
    else:
        _render(found, Console())
    return 0 if found["emulation"] else 1


def _render(found: dict[str, Any], console: Console) -> None:
    table = Table(title="emulation on this machine", title_justify="left", show_header=False)
    for key, value in found.items():
        if key == "commands":
            missing = [f"{tool} (package {probe.TOOLS[tool]})" for tool in value if not value[tool]]
            table.add_row("commands", f"missing: {', '.join(missing)}" if missing else "all there")
        elif key != "limits":
            table.add_row(key.replace("_", " "), _words(value))
    console.print(table)
    for line in found["limits"]:
        console.print(f"- {line}")


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value)
    return "-" if value is None else str(value)
