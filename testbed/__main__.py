"""``python -m testbed up | down | check | describe``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

COMMANDS = {
    "up": "start an emulated WAN and try things in it (root)",
    "down": "remove what emulated WANs left behind",
    "check": "say what this machine can emulate",
    "describe": "show what a WAN is: centers, links, routes",
}


def main(argv: Sequence[str]) -> int:
    """Hands over to the command's own argument parser."""
    listing = "\n".join(f"  {name:10}{what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m testbed",
        description="Work with WANs between data centers, without a training run.",
        epilog=(
            f"commands:\n{listing}\n\n"
            "`python -m testbed COMMAND --help` tells more. Examples:\n"
            "  python -m testbed up wan=three_centers wan.bandwidth_scale=0.5\n"
            "  python -m testbed describe wan=netstorm9_static"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the command")
    options = parser.parse_args(list(argv))
    if options.command == "describe":
        from testbed.wan.describe import main as run
    elif options.command == "check":
        from testbed.emulated.check import main as run
    elif options.command == "up":
        from testbed.emulated.interactive import up as run
    else:
        from testbed.emulated.interactive import down as run
    return run(options.arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
