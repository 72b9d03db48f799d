"""LEAF's FEMNIST out of small JSON files: layouts, its two defects, and damaged files."""

import json
import logging

import numpy as np
import pytest

from geojax.data import load_dataset
from geojax.data.femnist import FemnistConfig
from geojax.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def own_cache(nowhere):
    """Nothing of these tests stays in the user's cache."""


def a_writer(number, samples):
    """Pixels, 0 to 255, and classes: no two images alike."""
    draws = np.random.default_rng(number)
    return draws.integers(0, 256, (samples, 784)), draws.integers(0, 62, samples)


def content(writers):
    data = {
        name: {"x": (pixels / 255).tolist(), "y": labels.tolist()}
        for name, (pixels, labels) in writers.items()
    }
    counts = [len(labels) for _, labels in writers.values()]
    return {"users": list(writers), "num_samples": counts, "user_data": data}


def write(folder, *files):
    folder.mkdir(parents=True)
    for number, writers in enumerate(files):
        (folder / f"all_data_{number}_niid.json").write_text(json.dumps(content(writers)))


def rows(images):
    return {image.tobytes() for image in np.rint(images * 255).astype(np.uint8)}


def test_train_and_test_as_leaf_splits_them(tmp_path):
    a, b, c = (a_writer(number, samples) for number, samples in ((0, 9), (1, 5), (2, 3)))
    write(tmp_path / "data" / "train", {"f0001_08": b, "f0000_14": a})
    write(tmp_path / "data" / "test", {"f0000_14": c})
    for path in (tmp_path / "data", tmp_path):
        data = load_dataset(FemnistConfig(path=str(path)))
        assert data.train_x.shape == (14, 28, 28, 1)
        assert data.train_groups is not None
        assert data.train_groups.tolist() == [0] * 9 + [1] * 5  # in the order of their names
        for images, labels, (pixels, classes) in (
            (data.train_x[:9], data.train_y[:9], a),
            (data.train_x[9:], data.train_y[9:], b),
            (data.test_x, data.test_y, c),
        ):
            whole = np.rint(images * 255).astype(int).reshape(-1, 784)
            np.testing.assert_array_equal(whole, pixels)
            np.testing.assert_array_equal(labels, classes)
        assert data.classes == 62


def test_all_data_is_split_by_us_writer_by_writer(tmp_path):
    own = {f"f{number:04}": a_writer(number, 20 + number) for number in range(4)}
    names = list(own)
    write(tmp_path / "all_data", *({n: own[n] for n in pair} for pair in (names[:2], names[2:])))
    data = load_dataset(FemnistConfig(path=str(tmp_path)))
    assert data.train_groups is not None
    assert np.bincount(data.train_groups).tolist() == [18, 18, 19, 20]
    assert len(data.test_y) == 2 + 3 + 3 + 3
    assert not rows(data.train_x) & rows(data.test_x)
    files = load_dataset(FemnistConfig(path=str(tmp_path / "all_data")))
    np.testing.assert_array_equal(files.train_x, data.train_x)
    inverted = load_dataset(FemnistConfig(path=str(tmp_path), invert=True))
    np.testing.assert_allclose(inverted.train_x, 1 - data.train_x, atol=1e-6)
    few = load_dataset(FemnistConfig(path=str(tmp_path), min_samples=22))
    assert few.train_groups is not None
    assert np.bincount(few.train_groups).tolist() == [19, 20]


@pytest.mark.parametrize(("duplicates", "kept"), [("drop", 20), ("keep", 21)])
def test_an_image_that_a_writer_has_twice(tmp_path, duplicates, kept):
    pixels, labels = a_writer(0, 20)
    twice = np.concatenate([pixels, pixels[:1]]), np.concatenate([labels, labels[:1]])
    write(tmp_path / "all_data", {"a": twice})
    data = load_dataset(FemnistConfig(path=str(tmp_path), duplicates=duplicates))
    assert len(data.train_y) + len(data.test_y) == kept
    assert len(rows(data.train_x) | rows(data.test_x)) == 20


def test_a_repetition_in_both_sets_is_left_out_of_training(tmp_path):
    pixels, labels = a_writer(0, 20)
    write(tmp_path / "train", {"a": (pixels[:15], labels[:15]), "b": a_writer(1, 4)})
    write(tmp_path / "test", {"a": (pixels[14:], labels[14:])})
    data = load_dataset(FemnistConfig(path=str(tmp_path)))
    assert (len(data.train_y), len(data.test_y)) == (14 + 4, 6)
    assert not rows(data.train_x) & rows(data.test_x)
    kept = load_dataset(FemnistConfig(path=str(tmp_path), duplicates="keep"))
    assert (len(kept.train_y), len(kept.test_y)) == (15 + 4, 6)


def test_files_that_are_all_full_are_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("geojax.data.femnist.FULL_FILE", 2)
    one, other = ({name: a_writer(ord(name), 12) for name in names} for names in ("ab", "cd"))
    write(tmp_path / "full", one, other)
    write(tmp_path / "whole", one, {"c": other["c"]})
    with caplog.at_level(logging.WARNING):
        load_dataset(FemnistConfig(path=str(tmp_path / "whole")))
        assert not caplog.records
        load_dataset(FemnistConfig(path=str(tmp_path / "full")))
    assert "4 writers in 2 files of exactly 2 each: LEAF before its pull request 34" in caplog.text


def test_arrays_come_from_the_cache_until_a_file_changes(tmp_path, monkeypatch):
    write(tmp_path / "all_data", {"a": a_writer(0, 12)})
    first = load_dataset(FemnistConfig(path=str(tmp_path)))
    with monkeypatch.context() as patched:
        patched.setattr("geojax.data.femnist.read_folder", None)
        again = load_dataset(FemnistConfig(path=str(tmp_path)))
    np.testing.assert_array_equal(first.train_x, again.train_x)
    file = next((tmp_path / "all_data").iterdir())
    file.write_text(json.dumps(content({"a": a_writer(3, 15)})))
    assert len(load_dataset(FemnistConfig(path=str(tmp_path))).train_y) == 13


def test_a_file_that_is_cut_short_names_the_user_at_whom_it_ends(tmp_path):
    file = tmp_path / "all_data_0.json"
    whole = json.dumps(content({"f1": a_writer(0, 3), "f2": a_writer(1, 3)}))
    for kept, user in ((len(whole) - 10, "user f2"), (len(whole) // 3, "user f1"), (5, "its list")):
        file.write_text(whole[:kept])
        with pytest.raises(DataError, match=rf"all_data_0\.json ends .* at {user}.*run LEAF's"):
            load_dataset(FemnistConfig(path=str(tmp_path)))


def twice(made):
    made["users"].append("f2")
    made["num_samples"].append(3)


def damaged(change):
    made = content({"f1": a_writer(0, 3), "f2": a_writer(1, 3)})
    change(made, made["user_data"]["f2"])
    return made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made, own: made["user_data"].pop("f2"), "user f2 has no x and y"),
        (lambda made, own: own.pop("y"), "user f2 has no x and y"),
        (lambda made, own: own["x"].pop(), r"user f2 has 2 images, 3 classes, 3 in num_samples"),
        (lambda made, own: own["x"][1].pop(), r"user f2 has an image that is no list of 784"),
        (lambda made, own: own["y"].__setitem__(0, 62), "user f2 has classes outside 0 to 61"),
        (lambda made, own: own["y"].__setitem__(0, "a"), "or a class that is no number"),
        (lambda made, own: own["x"][0].__setitem__(0, 1.5), r"user f2 has a pixel 1\.5; LEAF's"),
        (lambda made, own: own["x"][0].__setitem__(0, 0.001), r"user f2 has a pixel 0\.001"),
        (lambda made, own: made["users"].pop(), "1 users, 2 in num_samples"),
        (lambda made, own: made.pop("users"), "is no file of LEAF: it needs users"),
        (lambda made, own: made["user_data"].update(f3=own), "user f3 has data and is not in us"),
        (lambda made, own: made.update(users=5), "is no file of LEAF: users a list of names"),
        (lambda made, own: made.update(users=None), "is no file of LEAF: users a list of names"),
        (lambda made, own: made.update(users=[["f1"], "f2"]), "is no file of LEAF: users a list"),
        (lambda made, own: made.update(num_samples=None), "num_samples one of whole numbers"),
        (lambda made, own: made.update(num_samples=[3, "3"]), "num_samples one of whole numbers"),
        (lambda made, own: made.update(num_samples=[3, True]), "num_samples one of whole numbers"),
        (lambda made, own: made.update(user_data=[]), "is no file of LEAF: .* user_data an object"),
        (lambda made, own: own.update(x=[own["x"][0] * 3]), "user f2 has an image that is no"),
        (lambda made, own: twice(made), "user f2 stands in users twice"),
    ],
)
def test_a_damaged_file_names_the_user_and_the_fix(tmp_path, change, message):
    (tmp_path / "some.json").write_text(json.dumps(damaged(change)))
    with pytest.raises(DataError, match=rf"some\.json.*{message}.*LEAF's preprocess.sh|{message}"):
        load_dataset(FemnistConfig(path=str(tmp_path)))


def test_a_file_that_nests_too_deeply_is_refused(tmp_path):
    (tmp_path / "some.json").write_text('{"users": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(DataError, match=r"some\.json nests lists or objects too deeply.*LEAF's"):
        load_dataset(FemnistConfig(path=str(tmp_path)))


def test_a_writer_in_two_files_is_refused(tmp_path):
    write(tmp_path / "all_data", {"a": a_writer(0, 3)}, {"a": a_writer(1, 3)})
    with pytest.raises(DataError, match=r"all_data_1_niid\.json: user a stands in another file"):
        load_dataset(FemnistConfig(path=str(tmp_path)))


def test_what_is_not_there_is_named(tmp_path):
    for path in (None, "/no/such"):
        with pytest.raises(ConfigError, match=r"data\.path = .*no such folder; name the folder"):
            load_dataset(FemnistConfig(path=path))
    with pytest.raises(ConfigError, match=r"has no \.json files in train and test, or all_data"):
        load_dataset(FemnistConfig(path=str(tmp_path)))
    write(tmp_path / "train", {"a": a_writer(0, 3)})
    with pytest.raises(ConfigError, match=r"has files in train, none in test"):
        load_dataset(FemnistConfig(path=str(tmp_path)))
    write(tmp_path / "test", {"a": a_writer(1, 3)})
    with pytest.raises(DataError, match=r"of 1 writers none is left .*min_samples = 9; use a"):
        load_dataset(FemnistConfig(path=str(tmp_path), min_samples=9))
