"""docs/architecture.md follows one update: its stops exist, and no file that it passes is left out.

The test follows one round of a small run (two workers a center, FSA, star) by a profile function,
and notes every file of geojax in which a function is given the update itself: a vector, an encoded
payload, a contribution or a message.
"""

import ast
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from simulated_runs import simulated, small_config

from geojax.hips.exchange.contribution import Contribution
from geojax.wire.message import Message

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
MOST_FILES = 25  # that one update enters
SMALL = 8  # elements; smaller arrays are counters and indices, no part of an update


def stops():
    """(qualified name, file) of every stop: links such as ``[`Worker._offer`](../geojax/x.py)``."""
    return re.findall(r"\[`([\w.]+)`\]\(\.\./([\w/]+\.py)\)", PAGE.read_text())


def defined(path):
    """Qualified names of all classes and functions of a file."""
    found = set()

    def walk(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(prefix + child.name)
                walk(child, f"{prefix}{child.name}.")

    walk(ast.parse(path.read_text()), "")
    return found


def is_update(value, depth=0):
    if isinstance(value, np.ndarray | jax.Array):
        return value.size > SMALL
    if isinstance(value, Message | Contribution):
        return True
    nested = depth < 2 and isinstance(value, list | tuple)
    return nested and any(is_update(each, depth + 1) for each in value[:3])


@pytest.fixture(scope="module")
def entered():
    """The files of geojax that one update enters, in order."""
    files = {}
    following = False

    def follow(frame, event, _):
        code = frame.f_code
        if event != "call" or not following or f"{ROOT}/geojax/" not in code.co_filename:
            return
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if any(is_update(frame.f_locals.get(name)) for name in arguments if name != "self"):
            files[str(Path(code.co_filename).relative_to(ROOT))] = None

    def watch(event):
        nonlocal following
        if event["event"] == "round":  # from the end of round 1 to the end of round 2 everywhere
            following = event["round"] == 1 or (event["round"] == 2 and following)
            following = following and (event["round"], event["node"]) != (2, "c3/w1")

    config = small_config(
        rounds=4, workers=2, model__name="mlp", data__name="digits",
        data__train_samples=200, data__test_samples=50, batch_size=8, eval_every_s=1000.0,
        hash_every=0,
    )  # fmt: skip
    sys.setprofile(follow)
    try:
        simulated(config, watch=watch)
    finally:
        sys.setprofile(None)
    return list(files)


def test_the_page_names_functions_that_exist():
    assert len(stops()) > 15
    missing = [stop for stop in stops() if stop[0] not in defined(ROOT / stop[1])]
    assert not missing


def test_one_update_enters_few_files(entered):
    assert 15 < len(entered) < MOST_FILES, entered


def test_the_page_names_every_file_that_an_update_enters(entered):
    named = set(re.findall(r"\(\.\./([\w/]+\.py)\)", PAGE.read_text()))
    assert not set(entered) - named
