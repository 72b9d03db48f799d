"""The project's own files: what is committed, documented and pinned."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCUMENTS = ["README.md", "CONTRIBUTING.md"]
MOST_LINES = 600

# Folders of one machine or user; the classes keep the patterns from finding themselves.
MACHINE_PATH = re.compile(
    r"(?<![\w.}/-])/(?:hom[e]/(?!someone\b)|User[s]/|roo[t]/|wor[k]/|op[t]/)\w"
)
REGISTRY = re.compile(
    r"pyp[i]\.org|pythonhoste[d]\.org|de[b]\.debian\.org|archiv[e]\.ubuntu\.com|npmj[s]\.|"
    r"anacond[a]\.org|--index-ur[l]|--extra-inde[x]|--find-link[s]"
)


def committed() -> list[Path]:
    """The text files of the project: tracked ones, and new ones that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:1024]]


@pytest.mark.parametrize(
    ("pattern", "finds"),
    [(MACHINE_PATH, "cd /hom" + "e/me/geojax"), (REGISTRY, "pip install --index-ur" + "l=x y")],
)
def test_no_machine_path_or_registry_is_committed(pattern, finds):
    assert pattern.search(finds)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in committed()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(["", *found])


def test_files_are_short():
    lengths = {path: len(path.read_text().splitlines()) for path in committed()}
    assert len(lengths) > 20
    assert not {path: n for path, n in lengths.items() if n >= MOST_LINES}


def test_pyproject_names_files_that_exist():
    named = [PROJECT["readme"], *PROJECT["license-files"]]
    assert [name for name in named if not (ROOT / name).is_file()] == []
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_version_is_stated_once():
    assert importlib.metadata.version("geojax") == PROJECT["version"]


def test_changelog_has_a_place_for_changes():
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_is_pinned_within_its_bounds():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.lower().split("==") for line in lines if line and line[0] != "#")
    extras = PROJECT["optional-dependencies"].values()
    for text in [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]:
        requirement = Requirement(text)
        name = requirement.name.lower()
        pin = pins.get(name) or pins[name.replace("-", "_")]
        assert requirement.specifier.contains(pin, prereleases=True), (str(requirement), pin)


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_make_help_lists_every_target():
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = re.findall(r"^make (\w+) +\S", shown.stdout, re.MULTILINE)
    assert set(listed) == make_targets()
    assert {"setup", "demo", "test", "nightly", "lint", "help"} <= set(listed)


def commands(document: str) -> list[str]:
    """The command lines of a document's shell blocks; in console blocks, those after ``$``."""
    blocks = re.findall(r"^```(bash|sh|console)\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
    found = []
    for language, block in blocks:
        lines = block.replace("\\\n", " ").splitlines()
        if language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        found += [line.strip() for line in lines if line.strip() and line.lstrip()[0] != "#"]
    return found


def unknown_words(command: str) -> list[str]:
    """What a documented command names and the project does not have."""
    missing = []
    if match := re.match(r"make (\w+)", command):
        missing += {match[1]} - make_targets()
    if match := re.search(r"python3? -m (geojax|testbed|experiments)((?:\.\w+)*)", command):
        path = ROOT / match[1] / Path(*match[2].split(".")[1:])
        if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
            missing.append(match[1] + match[2])
        for group, names in re.findall(r"(?<=\s)([\w/]+)=([\w,]+)", command):
            if (ROOT / "conf" / group).is_dir() and "plugins=" not in command:  # tests run those
                options = {option.stem for option in (ROOT / "conf" / group).glob("*.yaml")}
                missing += [f"{group}={name}" for name in names.split(",") if name not in options]
    return missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documented_commands_exist(name):
    found = commands((ROOT / name).read_text())
    assert found
    assert {line: unknown_words(line) for line in found if unknown_words(line)} == {}


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("make demo", []),
        ("make cake", ["cake"]),
        ("python -m experiments.cake", ["experiments.cake"]),
        ("python -m experiments.train -m wan=cake,uniform seed=1", ["wan=cake"]),
    ],
)
def test_checker_of_documents_knows_what_exists(command, missing):
    assert unknown_words(command) == missing


def test_checker_of_documents_finds_the_commands():
    text = "```console\n$ make demo\noutput\n```\n```bash\n# a comment\nmake \\\n  test\n```\n"
    assert commands(text) == ["make demo", "make    test"]
