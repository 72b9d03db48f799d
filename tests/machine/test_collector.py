"""How a process looks for cycles."""

import subprocess
import sys

SCRIPT = """
import atexit, gc
atexit.register(lambda: print(gc.get_threshold()[0], gc.get_freeze_count() > 1000))
from geojax.machine.collector import collect_seldom
print(gc.get_freeze_count())
collect_seldom()
"""


def test_a_process_that_ends_does_not_look_for_cycles():
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "100000", "True"]
