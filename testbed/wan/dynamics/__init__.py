"""How the rates of a WAN change over experiment time; seeded, and the same in every testbed.

``wan.dynamics`` holds one of these, or a list of them that act together:

* ``{kind: constant}``: rates stay as stated, or as drawn once from ``wan.draw``;
* ``{kind: redraw, period_s, low, high}``: every rate is drawn anew each period;
* ``{kind: steps, steps: [{at, LINKS, rate | factor}, ...]}``: scripted rates (Mbit/s) or factors;
* ``{kind: trace, file, repeat_s}``: rates from a CSV file with columns time_s, from, to, mbit;
* ``{kind: trace, mahimahi: [{LINKS, file}, ...], bin_s}``: rates from mahimahi's packet traces;
* ``{kind: outage, LINKS, at, duration}``: rate 0, then what it would have been.

LINKS is one of ``all: true``, ``center: a`` (all links of a center), ``between: [a, b]`` (both
directions), ``from: a, to: b``, or ``links: [...]`` with a list of these.

In a list, redraws, traces and steps with a ``rate`` set a link's rate, the latest one wins (of
several at one instant, the last of the list); factors and outages multiply it. Each script has one
factor per link: its later factor replaces its earlier one, and its ``rate`` ends its factor.

A dynamics object speaks of unscaled rates (bit/s); :class:`testbed.wan.build.Wan` applies
``wan.bandwidth_scale``. Draw number k depends on the seed and k alone, so changes can be replayed
from any instant, and reading ahead never alters them.
"""

from testbed.wan.dynamics.base import MBIT, Change, Dynamics, Event, Script
from testbed.wan.dynamics.combine import DYNAMICS, Scripts, build_dynamics
from testbed.wan.dynamics.draws import Constant, Draw, Redraw
from testbed.wan.dynamics.scripts import Outage, Step, Steps
from testbed.wan.dynamics.trace_files import (
    Series,
    read_csv,
    read_mahimahi,
    record,
    write_csv,
    write_mahimahi,
)
from testbed.wan.dynamics.traces import Trace

__all__ = [
    "DYNAMICS",
    "MBIT",
    "Change",
    "Constant",
    "Draw",
    "Dynamics",
    "Event",
    "Outage",
    "Redraw",
    "Script",
    "Scripts",
    "Series",
    "Step",
    "Steps",
    "Trace",
    "build_dynamics",
    "read_csv",
    "read_mahimahi",
    "record",
    "write_csv",
    "write_mahimahi",
]
