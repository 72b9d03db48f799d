"""What a reader sees in pictures of runs: whole legends, percent, stable colors, nothing hidden."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from plotted_runs import add_events, executed, path_config
from run_folders import write_run

from experiments.plot.__main__ import find_groups
from experiments.plot.curves import draw_curves
from experiments.plot.labels import in_facets, row_labels
from experiments.plot.links import draw_links
from experiments.plot.run_events import NodeSpan, read_records
from experiments.plot.sync import draw_sync
from experiments.plot.timeline import draw_timeline
from experiments.plot.trees import choose, draw_trees
from experiments.runs.rows import collect, group
from geojax.errors import ConfigError
from testbed.wan.drawing import save


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three learning rates of a star, whose sync times are the same."""
    folder = tmp_path_factory.mktemp("runs")
    for lr in (0.1, 0.2, 0.3):
        run_dir = executed(path_config(lr=lr), folder / str(lr))
        evaluation = {"node": "a", "event": "evaluation", "round": 0, "accuracy": 0.5}
        add_events(run_dir, {"t": 0.01, **evaluation}, {"t": 0.02, **evaluation})
    return folder


@pytest.fixture(scope="module")
def groups(folder):
    return find_groups([folder], lambda _: None)


def legend_of(figure: Figure) -> Legend:
    (legend,) = figure.legends
    return legend


def names_in(legend: Legend) -> list[str]:
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("draw", [draw_curves, draw_sync])
@pytest.mark.parametrize("letters", [10, 60, 300])
def test_a_legend_is_whole_however_long_its_names(groups, tmp_path, draw, letters):
    named = [dataclasses.replace(g, name=f"{n} " + "word " * (letters // 5))
             for n, g in enumerate(groups)]  # fmt: skip
    figure = draw(named, "a title")
    save(figure, tmp_path / "picture.png", "salt")
    legend = legend_of(figure)
    box, whole = legend.get_window_extent(), figure.bbox
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= whole.x1
    assert box.y1 <= min(axes.get_window_extent().y0 for axes in figure.axes)
    assert [name.split()[0] for name in names_in(legend)][:3] == ["0", "1", "2"]


def test_facets_have_panels_of_one_scale_and_names_without_their_setting(groups):
    figure = draw_curves(in_facets(groups, "lr"), "a title")
    grid = np.array(figure.axes).reshape(3, 2)
    assert [axes.get_title(loc="left") for axes in grid[:, 0]] == ["lr 0.1", "lr 0.2", "lr 0.3"]
    assert [axes.lines[0].get_label() for axes in grid[:, 0]] == ["default"] * 3
    assert len({axes.lines[0].get_color() for axes in grid.ravel()}) == 1
    assert len({axes.get_xlim() for axes in grid[:, 1]}) == 1
    assert names_in(legend_of(figure)) == ["default"]
    with pytest.raises(ConfigError, match=r"--facet = 'lrr': no such setting; did you mean 'lr'"):
        in_facets(groups, "lrr")


def test_rounds_are_whole_numbers_and_equal_lines_are_all_seen(groups):
    figure = draw_sync(groups, "a title")
    rounds = figure.axes[0]
    ticks = [tick for tick in rounds.get_xticks() if rounds.get_xlim()[0] <= tick]
    assert all(tick == int(tick) >= 0 for tick in ticks)
    lines = rounds.lines[:3]
    assert len({line.get_xydata().tobytes() for line in lines}) == 1
    widths = [line.get_linewidth() for line in lines]
    assert widths[0] > widths[1] + 1 > widths[2] + 2
    assert names_in(legend_of(figure)) == ["lr=0.1", "lr=0.2", "lr=0.3", "bound"]


def with_spans(run, change):
    changed = dataclasses.replace(run)
    changed.__dict__["spans"] = tuple(found for span in run.spans if (found := change(span)))
    return changed


def test_little_use_is_told_apart_and_idle_links_are_left_out(folder):
    """A hundredth of the bytes, and nothing from c."""

    def little(span: NodeSpan):
        if span.name != "send":
            return span
        fewer = {**span.args, "bytes": span.args["bytes"] / 100}
        return None if span.node == "c" else span._replace(args=fewer)

    run = with_spans(read_records(folder / "0.1"), little)
    figure = draw_links(run, "a title")
    heat, means, scale = figure.axes
    assert [label.get_text().split("  ")[0] for label in heat.get_yticklabels()] == [
        "a → b", "b → a", "b → c",
    ]  # fmt: skip
    assert "; 1 idle links are left out" in figure.get_suptitle()
    picture = heat.images[0]
    top = picture.norm.vmax
    assert top < 0.1
    assert np.nanmax(picture.get_array()) > 0.3 * top
    figure.draw_without_rendering()
    for axis in (scale.yaxis, means.xaxis):
        assert axis.get_ticklabels()[-1].get_text().endswith("%")
    assert heat.get_legend() is None


def test_links_that_are_out_have_a_color_that_is_explained(folder):
    run = read_records(folder / "0.1")
    out = {"t": 0.0, "node": "wan", "event": "rates", "rates": [["a", "b", 0.0]]}
    back = {**out, "t": run.windows[2].start, "rates": [["a", "b", 8e6]]}
    run = dataclasses.replace(run, events=[out, back, *run.events])
    heat = draw_links(run, "a title").axes[0]
    assert "link out" in names_in(heat.get_legend())


def test_a_timeline_shows_the_shortest_sends_and_explains_in_one_order(folder):
    def short(span: NodeSpan):
        return span._replace(end=span.start) if span.name == "send" else span

    run = with_spans(read_records(folder / "0.1"), short)
    window = run.windows[1].start, run.windows[2].end
    dead = {"t": window[1], "node": "scheduler", "event": "dead", "nodes": ["c"]}
    run = dataclasses.replace(run, events=[*run.events, {**dead, "t": window[0]}])
    run.__dict__["spans"] = with_spans(read_records(folder / "0.1"), short).spans
    figure = draw_timeline(run, "a title", (1, 2))
    bars = [box for each in figure.axes[0].collections for box in each.get_paths()]
    widths = [np.ptp(path.vertices[:, 0]) for path in bars]
    assert min(widths) >= 0.0014 * (window[1] - window[0])
    assert names_in(legend_of(figure)) == ["compute", "wait", "send", "dead"]
    assert "c" in [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_trees_that_carry_nothing_have_no_panel_and_widths_have_a_scale(folder):
    run = read_records(folder / "0.1")
    planned = choose(run, None)
    trees = (*planned.policy.trees, *planned.policy.trees)
    policy = dataclasses.replace(planned.policy, trees=trees)
    figure = draw_trees(run, "a title", planned._replace(policy=policy, shares=(1.0, 0.0)))
    assert sum(axes.get_title().startswith("root") for axes in figure.axes) == 1
    assert "2 trees; 1 of them carry nothing" in figure.get_suptitle()
    legends = [legend for sub in figure.subfigs for part in sub.subfigs or [sub]
               for legend in part.legends]  # fmt: skip
    assert names_in(legends[0]) == [
        "to the root", "from the root", "2 × the model", "0.5 × the model",
    ]  # fmt: skip


def test_variants_with_names_are_called_by_them_alone(tmp_path):
    for name, lr in (("dense", 0.1), ("fp16", 0.2)):
        write_run(tmp_path / name, {"experiment": name, "lr": lr})
    assert row_labels(group(collect([tmp_path]))) == ["dense", "fp16"]
    write_run(tmp_path / "again", {"experiment": "fp16", "lr": 0.3})
    assert row_labels(group(collect([tmp_path])))[0] == "fp16, lr=0.3"
