"""Pictures of WANs: what is written where, and that the same WAN gives the same file."""

import re

import pytest

from geojax.config import LanConfig, WanConfig
from testbed.wan.build import build_wan, load_preset
from testbed.wan.picture import draw


def wan_of(name, **overrides):
    return build_wan(load_preset(name, **overrides), LanConfig(), 0)


def svg_of(wan, tmp_path, note=""):
    path = tmp_path / "wan.svg"
    draw(wan, path, note)
    return path.read_text()


def comments(svg):
    """Texts of an SVG: matplotlib draws glyphs as paths and leaves the text in a comment."""
    return re.findall(r"<!-- (.*?) -->", svg, flags=re.DOTALL)


def test_sites_rates_and_delays_are_written(tmp_path):
    svg = svg_of(wan_of("three_centers", jitter=2, loss=0.01), tmp_path, "a note")
    texts = " ".join(comments(svg))
    for words in ("three_centers: 3 centers, 6 directed links", "a note", "c1", "c2", "c3"):
        assert words in texts
    assert texts.count("10 ms ±2") == 2  # one-way, both directions of c1-c2
    assert "rate in Mbit/s, one-way delay in ms (half its rtt)" in texts
    assert texts.count("0.01 lost") == 6


def test_widths_are_in_proportion_to_rates(tmp_path):
    svg = svg_of(wan_of("netstorm9_static"), tmp_path)
    widths = {float(found) for found in re.findall(r"stroke-width: ([\d.]+)", svg)}
    assert 6.0 in widths  # 500 Mbit/s
    assert any(width == pytest.approx(0.7 + 5.3 / 5) for width in widths)  # 100 Mbit/s


def test_a_dense_wan_has_its_numbers_in_a_table(tmp_path):
    texts = comments(svg_of(wan_of("aws8_2025", bandwidth_scale=0.5), tmp_path))
    assert any("bandwidth_scale 0.5" in text for text in texts)
    assert any("rows send, columns receive" in text for text in texts)
    assert not any("one-way delay" in text for text in texts), "the table has round trips"
    assert any("115" in text for text in texts)  # half of Mumbai to Singapore
    assert any(text.startswith("caps out") for text in texts)


def test_the_same_wan_gives_the_same_file(tmp_path):
    wan = wan_of("random_geometric", centers=5, degree=2)
    assert svg_of(wan, tmp_path) == svg_of(wan, tmp_path)
    files = [tmp_path / name for name in ("a.pdf", "b.pdf")]
    for file in files:
        draw(wan, file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes().startswith(b"%PDF-")


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("single_center", {}),
        ("random_geometric", {"centers": 200}),
        ("random_sparse", {"centers": 18, "degree": 2}),
    ],
)
def test_every_size_can_be_drawn(tmp_path, name, overrides):
    path = tmp_path / "wan.png"
    draw(wan_of(name, **overrides), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_sites_at_one_point_are_pushed_apart(tmp_path):
    centers = [{"name": name, "position": [1, 1]} for name in "ab"]
    links = [{"between": ["a", "b"], "rate": 1, "rtt": 1}]
    svg = svg_of(build_wan(WanConfig("pair", None, centers, links), LanConfig(), 0), tmp_path)
    assert {"a", "b"} <= set(comments(svg))
