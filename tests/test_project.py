"""The project's own files: what is committed, documented and pinned."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from geojax.config import TestbedConfig

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
DOCUMENTS = [str(page.relative_to(ROOT)) for page in PAGES]
TOPS = "geojax|testbed|experiments|tools"
DOTTED = re.compile(rf"(?<![\w./{{-])(?:{TOPS})(?:\.\w+)+")
A_PATH = re.compile(rf"(?<![\w./<{{-])(?:{TOPS}|conf|docs|tests)/[\w/.-]*\w")
WRITTEN_BY_READERS = re.compile(r"\b(mine|growing_steps)\b|\bmy_")  # files of worked examples
RUN_BY_TESTS = re.compile(r"plugins=|--config-dir")  # commands with parts that readers write
MOST_LINES = 600
GENERATED = ROOT / "docs" / "configuration.md"  # as long as there are keys

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
    generated = ROOT / "docs" / "configuration.md"  # as long as there are keys
    written = [path for path in committed() if path != generated]
    lengths = {path: len(path.read_text().splitlines()) for path in written}
    assert len(lengths) > 20
    long = {path: n for path, n in lengths.items() if n >= MOST_LINES}
    assert not set(long) - {GENERATED}, long


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
    extras = [texts for name, texts in PROJECT["optional-dependencies"].items() if name != "peers"]
    for text in [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]:
        requirement = Requirement(text)
        name = requirement.name.lower()
        pin = pins.get(name) or pins[name.replace("-", "_")]
        assert requirement.specifier.contains(pin, prereleases=True), (str(requirement), pin)


def test_peers_pin_themselves():
    # No environment holds them beside our pins (Flower needs older protobuf and rich).
    assert all("==" in text for text in PROJECT["optional-dependencies"]["peers"])


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
    if match := re.search(rf"python3? -m ({TOPS})((?:\.\w+)*)", command):
        path = ROOT / match[1] / Path(*match[2].split(".")[1:])
        if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
            missing.append(match[1] + match[2])
        for group, names in re.findall(r"(?<=\s)([\w/]+)=([\w.,]+)", command):
            if (ROOT / "conf" / group).is_dir() and not RUN_BY_TESTS.search(command):
                options = {option.stem for option in (ROOT / "conf" / group).glob("*.yaml")}
                missing += [f"{group}={name}" for name in names.split(",") if name not in options]
    return missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documented_commands_exist(name):
    found = commands((ROOT / name).read_text())
    assert found or name.startswith("docs/")
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


def prose() -> dict[Path, str]:
    """What explains: Markdown, docstrings, comments of settings, and the Makefile."""
    found = {}
    for path in committed():
        text = path.read_text()
        if path.suffix == ".py":
            documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module
            nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, documented)]
            found[path] = "\n".join(ast.get_docstring(node) or "" for node in nodes)
        elif path.suffix == ".yaml":
            found[path] = "\n".join(line.partition("#")[2] for line in text.splitlines())
        elif path.suffix == ".md" or path.name == "Makefile":
            found[path] = text
    return found


@functools.cache
def exists(name: str) -> bool:
    """Whether a dotted name is a module, something that a module defines, or a testbed's key."""
    top, *inner = name.split(".")
    if top == "testbed" and inner[0] in {item.name for item in dataclasses.fields(TestbedConfig)}:
        return True
    place = ROOT / top
    while inner and (place / inner[0]).is_dir():
        place /= inner.pop(0)
    if inner and (place / f"{inner[0]}.py").is_file():
        module = place / f"{inner.pop(0)}.py"
    else:
        module = place / "__init__.py"
    return not inner or (module.is_file() and defines(parsed(module), inner))


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def defines(node: ast.AST, names: list[str]) -> bool:
    """Whether a module or class has a function, class, import or variable of this name."""
    return any(
        names[0] in (getattr(inner, "name", ""), getattr(inner, "id", ""))
        and (len(names) == 1 or defines(inner, names[1:]))
        for inner in ast.walk(node)
    )


def test_names_and_paths_in_prose_exist():
    found = prose()
    assert len(found) > 300
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, text in found.items()
        for name in [
            *(name for name in DOTTED.findall(text) if not exists(name)),
            *(name for name in A_PATH.findall(text) if not (ROOT / name).exists()),
        ]
        if not WRITTEN_BY_READERS.search(name)
    ]
    assert not missing, "\n".join(["", *missing])


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("geojax.wire.message", True),
        ("geojax.wire.message.Kind.OFFER", True),
        ("geojax.wire.massage", False),
        ("geojax.wire.message.Kind.CAKE", False),
        ("experiments.train", True),
        ("testbed.cpu_limit", True),
        ("testbed.cake", False),
    ],
)
def test_checker_of_names_knows_what_exists(name, known):
    assert exists(name) == known
