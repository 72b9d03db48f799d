"""Pictures of runs: ``python -m experiments.plot DIR... [--kind trees,links] [--format png,pdf]``.

Finds every run below the folders and draws what they have data for:

  trees     the trees of a run's policy over its WAN, and what they load onto its links
  links     how much of each WAN link was used, round by round or over time
  timeline  what each node did over a few rounds: computing, waiting, sending to each peer
  curves    test accuracy over experiment time and over WAN bytes, all runs in one picture
  sync      sync time of each round and its mean, with the WAN's bound, all runs in one picture

Runs that differ only in their seed are one line with a band; of those, the first is drawn where a
picture shows a single run. Runs that failed are named and left out.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments import command
from experiments.plot.labels import (
    MARK,
    Group,
    file_name,
    in_facets,
    marked,
    row_labels,
    run_title,
)
from experiments.plot.run_events import read_records
from experiments.runs.rows import collect, group, unfinished
from geojax.errors import ConfigError, GeojaxError, nearest
from testbed.wan import PICTURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("trees", "links", "timeline", "curves", "sync")
MOST_FOOTNOTES = 4
MOST_RUNS = 12  # whose trees, links and timelines are drawn


@dataclass(frozen=True)
class Options:
    """What to draw and where.

    Attributes:
      kinds: of pictures; None: all that there is data for.
      output: the folder; None: ``plots`` in the only folder that was named, else here.
      formats: endings of the files.
      most_trees: panels of single trees.
      policy: the version of the policy whose trees are drawn; None: the last.
      rounds: first and last round of timelines; None: three in the middle.
      facet: the setting by whose values curves have panels of their own; None: all in one.
    """

    kinds: tuple[str, ...] | None = None
    output: Path | None = None
    formats: tuple[str, ...] = ("png",)
    most_trees: int = 9
    policy: int | None = None
    rounds: tuple[int, int] | None = None
    facet: str | None = None


def plot(
    folders: Sequence[Path], options: Options, say: Callable[[str], None] = print
) -> list[Path]:
    """Draws the runs below some folders.

    Args:
      folders: where to look, at any depth.
      options: what to draw.
      say: takes what a reader should know: files written, what was left out and why.

    Returns:
      The files.

    Raises:
      GeojaxError: no finished run is found, or a picture that was asked for cannot be drawn.
    """
    groups = find_groups(folders, say)
    output = options.output or (folders[0] if len(folders) == 1 else Path()) / "plots"
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in options.kinds or KINDS:
        try:
            for name, figure in _figures(kind, groups, options, say):
                written += _write(figure, output, name, options.formats)
        except GeojaxError as error:
            if options.kinds is not None:
                raise
            say(f"left out: {kind}: {error}")
    for path in written:
        say(f"written: {path}")
    if not written:
        raise GeojaxError("there was nothing to draw, see above")
    return written


def find_groups(folders: Sequence[Path], say: Callable[[str], None]) -> list[Group]:
    """The finished runs below some folders, by what tells them apart.

    Raises:
      GeojaxError: there is no such folder, or no finished run below them.
    """
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise GeojaxError(f"no such folder: {', '.join(missing)}")
    rows = group(collect(folders))
    for row in rows:
        for run in row.runs:
            if not run.finished:
                text = str(run.summary.get("error", "")).strip() or "no error told"
                say(f"left out: {run.path}: failed: {text.splitlines()[0]}")
    if left_out := unfinished(folders):
        say(f"left out: {left_out} unfinished runs (no summary.json)")
    rows = [row for row in rows if row.finished]
    if not rows:
        where = ", ".join(map(str, folders))
        raise GeojaxError(f"no finished run below {where}: give folders of experiments.train")
    groups = []
    for name, row in zip(row_labels(rows), rows, strict=True):
        for remark in row.incidents:
            say(f"{MARK} {name}: {remark}")
        if row.repeats:
            say(f"left out: {row.repeats} repeated runs of the same seeds: {name}")
        groups.append(
            Group(marked(name, row), row, tuple(read_records(run.path) for run in row.finished))
        )
    return groups


def _footnotes(groups: Sequence[Group]) -> str:
    """Below a picture's title: what disturbed the runs in it, a line a row."""
    lines = [(group.name, remark) for group in groups for remark in group.row.incidents]
    shown = [f"\n{name}: {remark}" for name, remark in lines[:MOST_FOOTNOTES]]
    more = len(lines) - len(shown)
    return "".join(shown) + (f"\n{MARK}: and {more} more rows" if more else "")


def _figures(
    kind: str, groups: Sequence[Group], options: Options, say: Callable[[str], None]
) -> Iterator[tuple[str, Figure]]:
    """Pictures of one kind and the names of their files; matplotlib is loaded with the first."""
    title = ", ".join(dict.fromkeys(str(g.row.settings.get("experiment", "")) for g in groups))
    title += _footnotes(groups)
    if kind == "curves":
        from experiments.plot.curves import draw_curves

        faceted = groups if options.facet is None else in_facets(groups, options.facet)
        yield kind, draw_curves(faceted, title)
    elif kind == "sync":
        from experiments.plot.sync import draw_sync

        yield kind, draw_sync(groups, title)
    else:
        yield from _single_runs(kind, groups, options, say)


def _single_runs(
    kind: str, groups: Sequence[Group], options: Options, say: Callable[[str], None]
) -> Iterator[tuple[str, Figure]]:
    from experiments.plot.links import draw_links
    from experiments.plot.timeline import draw_timeline
    from experiments.plot.trees import choose, draw_trees

    if len(groups) > MOST_RUNS:
        say(f"left out: {kind} of {len(groups) - MOST_RUNS} runs: only the first {MOST_RUNS} are "
            "drawn; name fewer folders for others")  # fmt: skip
    names: dict[str, int] = {}
    for each in groups[:MOST_RUNS]:
        run, title = each.runs[0], run_title(each.name, each.row, each.row.finished[0])
        title += _footnotes([each])
        if kind == "trees":
            figure = draw_trees(run, title, choose(run, options.policy), options.most_trees)
        elif kind == "links":
            figure = draw_links(run, title)
        else:
            figure = draw_timeline(run, title, options.rounds)
        name = file_name(kind, each.name if len(groups) > 1 else "")
        names[name] = names.get(name, 0) + 1
        yield name if names[name] == 1 else f"{name}-{names[name]}", figure


def _write(figure: Figure, output: Path, name: str, formats: Sequence[str]) -> list[Path]:
    from testbed.wan.drawing import save

    paths = [output / f"{name}.{ending}" for ending in formats]
    for path in paths:
        save(figure, path, name)
    return paths


def _listed(key: str, valid: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        for name in text.split(","):
            if name not in valid:
                raise argparse.ArgumentTypeError(f"{key} {name!r}: {nearest(name, valid)}")
        return tuple(dict.fromkeys(text.split(",")))

    return read


def _rounds(text: str) -> tuple[int, int]:
    first, colon, last = text.partition(":")
    if not colon or not first.isdigit() or not last.isdigit() or int(last) < int(first):
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST:LAST, e.g. 10:12")
    return int(first), int(last)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("plot", __doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    parser.add_argument(
        "--kind",
        type=_listed("kind", KINDS),
        metavar="KIND,...",
        help=f"{', '.join(KINDS)}; default: all that the runs have data for",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where pictures are written; default: plots in DIR, or here if there are several",
    )
    parser.add_argument(
        "--format",
        type=_listed("format", PICTURES),
        default=("png",),
        metavar="FORMAT,...",
        help="png, svg, pdf, or several; default: png",
    )
    parser.add_argument(
        "--trees", type=int, default=9, metavar="N", help="trees: so many of the largest (9)"
    )
    parser.add_argument(
        "--policy", type=int, metavar="V", help="trees: of this policy version; default: the last"
    )
    parser.add_argument(
        "--rounds",
        type=_rounds,
        metavar="A:B",
        help="timeline: these rounds; default: three in the middle",
    )
    parser.add_argument(
        "--facet",
        metavar="KEY",
        help="curves: panels of their own for each value of a setting, e.g. wan or lr",
    )
    return parser


def main() -> None:
    """The command: exits with 2 when nothing can be drawn or a name is wrong."""
    given = _parser().parse_args()
    os.environ["MPLBACKEND"] = "agg"  # the user's may need a display, which nothing here does
    with command.refusing():
        if given.trees < 1:
            raise ConfigError("--trees", given.trees, "give the trees to draw, 1 or more")
        options = Options(
            given.kind,
            given.output,
            given.format,
            given.trees,
            given.policy,
            given.rounds,
            given.facet,
        )
        plot(given.folders, options)


if __name__ == "__main__":
    main()
