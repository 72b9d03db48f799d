"""A checkpoint that a full disk or a crash has cut is passed over for the one before it."""

import logging

import numpy as np
import pytest

from geojax.hips.cluster import START
from geojax.hips.storage.checkpoint import Checkpoints, resume_point

DAMAGE = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[: len(whole) // 2],
    "without its end": lambda whole: whole[:-30],
    "zeros": lambda whole: bytes(len(whole)),
    "one bit": lambda whole: whole[:200] + bytes([whole[200] ^ 1]) + whole[201:],
    "text": lambda whole: b"No space left on device",
}


@pytest.fixture
def folder(tmp_path):
    for node in ("c1", "c2"):
        for number in (1, 3):
            state = {"vector": np.arange(100, dtype=np.float32), "number": number}
            Checkpoints(tmp_path, node, 2).write(number, float(number), state)
    return tmp_path


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_the_one_before_counts(folder, damage, caplog):
    caplog.set_level(logging.WARNING, logger="geojax")
    assert resume_point(folder, ("c1", "c2")).round == 3
    newest = folder / "c2" / "round_00000003.npz"
    newest.write_bytes(damage(newest.read_bytes()))
    assert resume_point(folder, ("c1", "c2"))[:2] == (1, 1.0)
    assert str(newest) in caplog.text


def test_a_run_whose_checkpoints_are_all_damaged_starts_anew(folder):
    for path in folder.glob("c1/*.npz"):
        path.write_bytes(b"")
    assert resume_point(folder, ("c1", "c2")) == START
