"""The command: what is drawn of which runs, what is written and said."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from plotted_runs import add_events, executed, path_config
from run_folders import write_run

from experiments.plot import __main__ as command
from experiments.plot.__main__ import Options, find_groups, plot
from experiments.plot.curves import draw_curves
from experiments.plot.links import draw_links
from experiments.plot.run_events import read_records
from experiments.plot.sync import draw_sync
from experiments.plot.timeline import draw_timeline
from experiments.plot.trees import choose, draw_trees
from geojax.errors import ConfigError, GeojaxError
from testbed.wan.drawing import save


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A star with two seeds, a ring whose rates change; accuracies are made up."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        config = path_config(seed=seed)
        run_dir = executed(config, folder / f"star-{seed}")
        add_events(run_dir, *(
            {"t": 0.01 * at, "node": "a", "event": "evaluation", "round": at, "accuracy": value}
            for at, value in enumerate((0.1, 0.5 + 0.2 * seed, 0.9))
        ))  # fmt: skip
    executed(path_config(overlay__name="ring"), folder / "ring")
    add_events(
        folder / "ring",
        {"t": 0.02, "node": "wan", "event": "rates", "rates": [["a", "b", 4e6]]},
    )
    return folder


def texts(figure, tmp_path: Path) -> list[str]:
    """What an SVG of it says: matplotlib leaves each text in a comment."""
    path = tmp_path / "picture.svg"
    save(figure, path, "salt")
    return re.findall(r"<!-- (.*?) -->", path.read_text(), flags=re.DOTALL)


def test_everything_that_there_is_data_for_is_written_and_named(runs, tmp_path):
    said: list[str] = []
    written = plot([runs], Options(output=tmp_path / "out"), said.append)
    assert [path.name for path in written] == [
        "trees-ring.png", "trees-star.png", "links-ring.png", "links-star.png",
        "timeline-ring.png", "timeline-star.png", "curves.png", "sync.png",
    ]  # fmt: skip
    both = Options(("sync",), tmp_path, ("png", "svg"))
    written += plot([runs], both, said.append)
    assert [path.name for path in written[-2:]] == ["sync.png", "sync.svg"]
    for path in written:
        start = path.read_bytes()[:40]
        assert start.startswith(b"\x89PNG" if path.suffix == ".png" else b"<?xml")
        assert f"written: {path}" in said


def test_a_folder_s_pictures_lie_in_it_and_its_only_run_needs_no_name(runs, tmp_path):
    shutil.copytree(runs / "ring", tmp_path / "ring")
    said: list[str] = []
    written = plot([tmp_path / "ring"], Options(), said.append)
    assert [str(path.relative_to(tmp_path)) for path in written] == [
        "ring/plots/trees.png", "ring/plots/links.png", "ring/plots/timeline.png",
        "ring/plots/sync.png",
    ]  # fmt: skip
    assert any(line.startswith("left out: curves: no run evaluated") for line in said)


def test_a_picture_that_was_asked_for_must_be_possible(runs, tmp_path):
    options = Options(kinds=("curves",), output=tmp_path)
    with pytest.raises(GeojaxError, match="no run evaluated a model"):
        plot([runs / "ring"], options, lambda _: None)


def test_failed_and_unfinished_runs_are_named_and_left_out(runs, tmp_path):
    shutil.copytree(runs / "ring", tmp_path / "runs" / "ring")
    write_run(tmp_path / "runs" / "bad", {}, status="failed", error="c2 was lost\nmore")
    write_run(tmp_path / "runs" / "open", {"seed": 3})
    (tmp_path / "runs" / "open" / "summary.json").unlink()
    said: list[str] = []
    groups = find_groups([tmp_path / "runs"], said.append)
    assert [len(group.runs) for group in groups] == [1]
    assert said == [
        f"left out: {tmp_path / 'runs' / 'bad'}: failed: c2 was lost",
        "left out: 1 unfinished runs (no summary.json)",
    ]
    with pytest.raises(GeojaxError, match="no finished run below"):
        find_groups([tmp_path / "runs" / "bad"], said.append)
    with pytest.raises(GeojaxError, match="no such folder"):
        find_groups([tmp_path / "nowhere"], said.append)


def test_trees_have_a_panel_each_and_one_for_all(runs, tmp_path):
    run = read_records(runs / "ring")
    figure = draw_trees(run, "a title", choose(run, None))
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles[0].startswith("all trees")
    shares = dict(title.removeprefix("root ").split(": ") for title in titles[1:])
    assert set(shares) == {"a", "b", "c"}
    assert sum(float(share.removesuffix(" %")) for share in shares.values()) == pytest.approx(100)
    assert any("ring on path: 3 trees" in text for text in texts(figure, tmp_path))
    few = draw_trees(run, "a title", choose(run, None), 2)
    assert sum(axes.get_title().startswith("root") for axes in few.axes) == 2
    assert any("2 trees of the largest shares of 3" in text for text in texts(few, tmp_path))


def test_links_are_rows_with_their_rates_and_changes_are_marked(runs):
    star = draw_links(read_records(runs / "star-0"), "a title").axes[0]
    assert [label.get_text() for label in star.get_yticklabels()] == [
        "a → b  8", "b → a  8", "b → c  8", "c → b  8",
    ]  # fmt: skip
    assert star.get_legend() is None
    ring = draw_links(read_records(runs / "ring"), "a title").axes[0]
    assert {label.get_text() for label in ring.get_yticklabels()} == {
        "a → b", "b → a", "b → c", "c → b",
    }  # fmt: skip
    assert [text.get_text() for text in ring.get_legend().get_texts()] == ["rates change"]


def test_a_timeline_has_the_lanes_of_the_rounds_that_were_asked_for(runs, tmp_path):
    figure = draw_timeline(read_records(runs / "star-0"), "a title", (1, 2))
    found = texts(figure, tmp_path)
    assert {"a", "b", "c", "→ b", "→ c", "round 1 held", "round 2 held"} <= set(found)
    assert "round 3 held" not in found


def test_seeds_are_one_line_with_a_band(runs):
    groups = find_groups([runs], lambda _: None)
    figure = draw_curves(groups, "a title")
    over_time, over_bytes = figure.axes
    line = over_time.lines[0]
    assert line.get_xdata().tolist() == [0.0, 0.01, 0.02]
    assert line.get_ydata().tolist() == pytest.approx([0.1, 0.6, 0.9])
    assert len(over_time.collections) == 1
    assert over_bytes.get_xlabel() == "bytes over WAN links (MB)"


def test_sync_times_are_lines_and_bars_with_their_bound(runs):
    groups = find_groups([runs], lambda _: None)
    rounds, means = draw_sync(groups, "a title").axes
    assert rounds.get_xlabel() == "experiment time (s)", "the ring's rates change"
    assert {label.get_text() for label in means.get_yticklabels()} == {
        group.name for group in groups
    }
    assert len(means.patches) == 2
    only = draw_sync([group for group in groups if len(group.runs) == 2], "a title").axes
    assert [axes.get_xlabel() for axes in only] == ["round"]
    _, names = only[0].get_legend_handles_labels()
    assert "bound" in names


def test_the_command_says_what_is_wrong(runs, tmp_path, monkeypatch, capsys):
    def exits(*arguments):
        monkeypatch.setattr(sys, "argv", ["plot", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            command.main()
        return caught.value.code, capsys.readouterr().err

    assert exits(tmp_path / "no") == (2, f"error: no such folder: {tmp_path / 'no'}\n")
    code, said = exits(runs, "--kind", "tree")
    assert code == 2
    assert "did you mean 'trees'?" in said
    assert exits(runs, "--rounds", "3")[0] == 2
    code, said = exits(runs, "--kind", "trees", "--policy", "4", "--output", tmp_path)
    assert (code, said) == (2, "error: --policy = 4: this run's policies have the versions 0\n")
    code, said = exits(runs, "--trees", "0")
    assert (code, said) == (2, "error: --trees = 0: give the trees to draw, 1 or more\n")


def test_a_run_of_another_version_is_refused(runs, tmp_path):
    shutil.copytree(runs / "ring", tmp_path / "ring")
    config = tmp_path / "ring" / "config.yaml"
    config.write_text(config.read_text() + "no_such_key: 1\n")
    with pytest.raises(GeojaxError, match=r"config.yaml is of another version: .*no_such_key"):
        read_records(tmp_path / "ring")
    (tmp_path / "ring" / "events.jsonl").unlink()
    with pytest.raises(ConfigError, match="--rounds"):
        draw_timeline(read_records(runs / "ring"), "a title", (70, 71))
