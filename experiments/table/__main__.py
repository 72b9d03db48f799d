"""The comparison of runs: ``python -m experiments.table DIR... [--baseline k=v] [--format md]``.

Finds every ``summary.json`` below the folders, puts runs that differ only in their seed into one
row (mean ± standard deviation), and shows the settings that tell the rows apart.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from experiments import command
from experiments.runs.rows import astray, collect, group, unfinished
from experiments.table.comparison import METRICS, Metric, Table, compare
from experiments.table.curves import COSTS, at_cost, at_equal, until_best_of
from experiments.table.formats import FORMATS
from experiments.table.pivot import pivot
from geojax.errors import GeojaxError


def build(
    folders: Sequence[pathlib.Path],
    *,
    columns: Sequence[str] | None = None,
    baseline: dict[str, str] | None = None,
    side_by_side: str | None = None,
    equal: str | None = None,
    at: tuple[str, float] | None = None,
    best_of: dict[str, str] | None = None,
) -> Table:
    """Builds the table of all runs below some folders.

    Args:
      folders: where to look for ``summary.json``, at any depth.
      columns: summary keys to show; None: the default set.
      baseline: settings of the rows that others are compared with.
      side_by_side: a setting, e.g. ``testbed``, whose values become columns.
      equal: a key of :data:`~experiments.table.curves.COSTS` at which accuracies are compared.
      at: a cost, as for ``equal``, and how much of it each run may have spent.
      best_of: settings of the row whose best accuracy the others are timed to.

    Raises:
      GeojaxError: nothing is found, or a name is wrong.
    """
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise GeojaxError(f"no such folder: {', '.join(missing)}")
    rows = group(collect(folders))
    if not rows:
        raise GeojaxError(f"no summary.json below {', '.join(map(str, folders))}")
    if side_by_side and (equal or at or best_of):
        raise GeojaxError("--pivot goes with none of --equal, --at and --best-of: leave it out")
    more: list[Metric] = []
    if equal:
        rows, found = at_equal(rows, equal)
        more += found
    if at:
        rows, found = at_cost(rows, *at)
        more += found
    if best_of:
        rows, found = until_best_of(rows, best_of)
        more += found
    if side_by_side:
        table = pivot(rows, side_by_side, columns=columns)
    else:
        table = compare(rows, columns=columns, baseline=baseline, more=more)
    left_out = unfinished(folders)
    if left_out:
        table.notes.append(f"{left_out} unfinished runs (no summary.json) are left out")
    lost = astray(folders)
    if lost:
        names = ", ".join(map(str, lost[:3])) + (", …" if len(lost) > 3 else "")
        table.notes.append(
            f"{len(lost)} runs are left out: they lie elsewhere, and are gone: {names}"
        )
    return table


def show(folders: Sequence[pathlib.Path], **options: Any) -> None:
    """Prints the table of all runs below some folders; ``options``: see :func:`build`."""
    print(FORMATS["rich"](build(folders, **options)), flush=True)


def _setting(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name and equals and value for name, equals, value in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key=value[,key=value]")
    return {name: value for name, _, value in pairs}


def _cost(text: str) -> tuple[str, float]:
    cost, _, amount = text.partition("=")
    try:
        if cost not in COSTS or not 0 < float(amount) < float("inf"):
            raise ValueError
    except ValueError:
        fix = f"is not of the form COST=AMOUNT with a cost of {', '.join(COSTS)}"
        raise argparse.ArgumentTypeError(f"{text!r} {fix}") from None
    return cost, float(amount)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("table", __doc__)
    parser.add_argument("folders", nargs="+", type=pathlib.Path, metavar="DIR")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument(
        "--baseline",
        type=_setting,
        metavar="KEY=VALUE",
        help="adds speed-ups over the rows with this setting, e.g. sync=fsa",
    )
    shape.add_argument(
        "--pivot",
        metavar="KEY",
        help="one column per value of a setting, e.g. testbed, and their ratio",
    )
    parser.add_argument(
        "--equal",
        choices=list(COSTS),
        help="adds the accuracy that each row had at what the cheapest run spent in all",
    )
    parser.add_argument(
        "--at",
        type=_cost,
        metavar="COST=AMOUNT",
        help="adds the accuracy that each row had when it had spent so much, e.g. time_s=30; "
        f"costs: {', '.join(COSTS)}",
    )
    parser.add_argument(
        "--best-of",
        type=_setting,
        metavar="KEY=VALUE",
        help="adds rounds and time until the best accuracy of the row with this setting",
    )
    parser.add_argument("--format", choices=list(FORMATS), default="rich")
    parser.add_argument(
        "--columns",
        type=lambda text: text.split(","),
        metavar="KEY,...",
        help="figures of summary.json to show, e.g. time_s,sync_s.p95; "
        f"default: {','.join(metric.key for metric in METRICS)}",
    )
    return parser


def main() -> None:
    """The command: exits with 2 when nothing is found or a name is wrong."""
    arguments = _parser().parse_args()
    with command.refusing():
        table = build(
            arguments.folders,
            columns=arguments.columns,
            baseline=arguments.baseline,
            side_by_side=arguments.pivot,
            equal=arguments.equal,
            at=arguments.at,
            best_of=arguments.best_of,
        )
    sys.stdout.write(FORMATS[arguments.format](table))


if __name__ == "__main__":
    main()
