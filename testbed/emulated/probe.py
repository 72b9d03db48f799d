"""What this machine can emulate. Everything is tried out in scratch namespaces that vanish."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TOOLS = {  # command: Debian package
    "mnexec": "mininet",
    "ifconfig": "net-tools",
    "ip": "iproute2",
    "tc": "iproute2",
    "bridge": "iproute2",
    "sysctl": "procps",
    "unshare": "util-linux",
}
CONGESTION_CONTROLS = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
PATIENCE_S = 5.0
SHAPING = (
    "qdisc add dev lo root handle 1: htb default 0",
    "class add dev lo parent 1: classid 1:1 htb rate 1000000bit",
    "qdisc add dev lo parent 1:1 handle 10: bfifo limit 131072",
    "filter add dev lo parent 1: protocol all prio 1 u32 match u16 0x0267 0xffff at -14"
    " match u32 0x00000001 0xffffffff at -12 flowid 1:1",
)
WIRES = (
    "link add name probe0 type bridge",
    "link add name probe1 type veth peer name probe2",
    "link set probe1 master probe0",
)
NETEM = ("qdisc add dev lo root netem delay 1000us limit 1000",)
NETEM_SEED = ("qdisc add dev lo root netem loss random 1% seed 1 limit 1000",)


def attempt(tool: str, lines: Sequence[str]) -> str | None:
    """Runs batch commands of ``tc`` or ``ip`` in a network namespace that exists only for them.

    Returns:
      None if all of them worked, else the tool's words.
    """
    try:
        done = subprocess.run(
            ["unshare", "--net", tool, "-batch", "-"],
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    return " ".join((done.stderr or done.stdout).split()) or f"exit status {done.returncode}"


def missing_tool() -> str | None:
    """The first command that is not installed, and how to install it."""
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            return f"no {tool}: run `apt-get install --no-install-recommends {package}`"
    return None


def missing_module() -> str | None:
    """Why Mininet's Python package cannot be imported, and what to do."""
    if importlib.util.find_spec("mininet") is None:
        return "no Python package mininet: run `pip install mininet`"
    if sys.version_info >= (3, 12) and importlib.util.find_spec("setuptools") is None:
        return "Mininet 2.3 needs distutils: run `pip install setuptools`"
    return None


def has_netem() -> bool:
    """Whether the kernel can delay packets itself."""
    return attempt("tc", NETEM) is None


def has_netem_seed() -> bool:
    """Whether netem's losses and jitters can be drawn from a seed (Linux and iproute2 6.6)."""
    return attempt("tc", NETEM_SEED) is None


def packet_sockets() -> str | None:
    """Why the delaying switch cannot have its sockets; None if it can."""
    from testbed.emulated.switch import forwarder

    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as port:
            port.setsockopt(forwarder.SOL_PACKET, forwarder.PACKET_VNET_HDR, 1)
            port.setsockopt(forwarder.SOL_PACKET, forwarder.PACKET_IGNORE_OUTGOING, 1)
    except OSError as error:
        return f"AF_PACKET sockets with virtio-net headers: {error.strerror} (Linux >= 4.20 needed)"
    return None


def available_congestion_controls() -> list[str]:
    """TCP congestion controls that the kernel has loaded or built in."""
    try:
        return CONGESTION_CONTROLS.read_text().split()
    except OSError:
        return []


def why_not() -> str | None:
    """Why this machine cannot emulate a WAN, in one line with the remedy; None if it can."""
    if sys.platform != "linux":
        return f"emulation needs Linux, this is {sys.platform}"
    if os.geteuid() != 0:
        return "emulation needs root: run as root (sudo), or use testbed=simulated or local"
    reason = missing_tool() or missing_module()
    if reason is not None:
        return reason
    for what, tool, lines in (
        ("HTB, bfifo and u32 in the kernel", "tc", SHAPING),
        ("bridges and veth pairs in the kernel", "ip", WIRES),
    ):
        words = attempt(tool, lines)
        if words is not None:
            return f"emulation needs {what} and the right to make network namespaces: {words}"
    if not has_netem():
        words = packet_sockets()
        if words is not None:
            return f"neither netem nor {words}"
    return None
