"""Imports point downward only; JAX stays out of the processes that must not load it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("geojax", "testbed", "experiments")

# The rooms, from the bottom up. A module imports its own room and rooms of lower layers; the rooms
# of one layer know nothing of each other, except where the layer starts with GROUND. A room that is
# not listed as a key has no order inside, only no circles.
GROUND = "ground:"
ROOMS = {
    "": ("geojax", "testbed", "experiments"),
    "geojax": (
        "ground: errors settings registry fields config hollow telemetry",
        "models data compression overlay wire machine",
        "center selection sync awareness",
        "devices",
        "federated",
        "hips axes",
        "assemble",
        "node",
    ),
    "geojax.overlay": (
        "view",
        "policy.policy",
        "bounds routes",
        "base policy.placement",
        "policy.estimate policy.checking planners",
        "registry",
        "policy.cutting policy.planning",  # by the overlay that a configuration names
    ),
    "geojax.hips": (
        "cluster",
        "context",
        "routing",
        "exchange",
        "storage control",
        "roles",
    ),
    "testbed": (
        "ground: errors pids progress sessions",
        "wan figures",
        "faults",
        "simulated local",
        "emulated",
        "run",
        "play __main__",
    ),
    "testbed.emulated": (
        "commands launch naming",
        "shaping mininet_parts",
        "switch",
        "layout probe measure cleanup",
        "fabric check",
        "wan",
        "run interactive",
    ),
    "experiments": (
        "runs command",
        "table",
        "plot train bench compatibility configuration",
        "calibrate demo",
    ),
}
# What a layer would allow and yet must not be.
STRANGERS = {"testbed.emulated": "testbed.simulated"}

JAX = {"jax", "jaxlib", "flax", "optax", "chex", "orbax"}
WITH_JAX = (
    "geojax.models.",
    "geojax.center.",
    "geojax.federated.training.",
    "geojax.selection.batched",
    "experiments.bench.peers.",
)  # modules that may load it
BUT_NOT = {
    "geojax.models.registry", "geojax.models.losses", "geojax.center.inputs",
    "geojax.center.spec", "geojax.center.pace", "geojax.center.planned",
    "experiments.bench.peers.contest", "experiments.bench.peers.work",
}  # fmt: skip

UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "os.system", "os.popen"}
UNSAFE_OPTIONS = {"shell", "allow_pickle"}
# Their order is by memory address: a simulated run would differ from process to process.
UNORDERED = {"asyncio.wait", "asyncio.as_completed", "asyncio.TaskGroup"}
# The protocol's only clock is its event loop's.
CLOCKS = {"time.time", "time.monotonic", "time.perf_counter", "time.sleep"}
ON_LOOP_TIME = ("geojax.hips", "geojax.sync", "geojax.overlay", "geojax.selection")


@dataclass(frozen=True)
class Import:
    """One import statement: what it names, where, and whether loading the module runs it."""

    target: str
    line: int
    at_load: bool


class Tree:
    """The modules under ``root`` and what they import."""

    def __init__(self, root: Path):
        self.paths = {
            ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
            for package in PACKAGES
            for path in sorted((root / package).rglob("*.py"))
        }
        self.sources = {name: ast.parse(path.read_text()) for name, path in self.paths.items()}

    @cached_property
    def imports(self) -> dict[str, list[Import]]:
        """The imports of every module, those inside functions included."""
        return {name: list(self._imports(name)) for name in self.sources}

    def _imports(self, module: str) -> Iterator[Import]:
        waiting = deque([(self.sources[module], True)])
        while waiting:
            node, at_load = waiting.popleft()
            if isinstance(node, ast.Import | ast.ImportFrom | ast.Call):
                for target in self._targets(module, node):
                    yield Import(target, node.lineno, at_load)
            at_load = at_load and not (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
            )
            waiting.extend((child, at_load) for child in ast.iter_child_nodes(node))

    def _targets(self, module: str, node: ast.AST) -> Iterator[str]:
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                base = self._base(module, node)
                for alias in node.names:
                    inner = f"{base}.{alias.name}"
                    yield inner if inner in self.sources else base
            case ast.Call(func=function, args=[ast.Constant(value=str() as name), *_]):
                if ast.unparse(function) in {"importlib.import_module", "import_module"}:
                    yield name

    def _base(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = module if self.paths[module].name == "__init__.py" else module.rpartition(".")[0]
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        return ".".join([*above, node.module] if node.module else above)

    @cached_property
    def _with_jax(self) -> set[str]:
        """The modules whose loading loads JAX."""
        loaded = {
            module: {each for item in items if item.at_load for each in with_parents(item.target)}
            for module, items in self.imports.items()
        }
        found, more = set[str](), set(JAX)
        while more:
            found |= more
            more = {module for module, names in loaded.items() if names & found} - found
        return found

    def loads_jax(self, module: str) -> list[str]:
        """The chain of imports by which loading ``module`` loads JAX; empty: it does not."""
        if module not in self._with_jax:
            return []
        chains, seen = [[module]], {module}
        while chains:
            chain = chains.pop()
            for item in self.imports[chain[-1]]:
                if not item.at_load:
                    continue
                if item.target.split(".")[0] in JAX:
                    return [*chain, item.target]
                fresh = sorted(with_parents(item.target) & self.sources.keys() - seen)
                seen.update(fresh)
                chains.extend([*chain, name] for name in fresh)
        return []


def with_parents(module: str) -> set[str]:
    """A module and the packages that it is in, which loading it loads."""
    parts = module.split(".")
    return {".".join(parts[:stop]) for stop in range(1, len(parts) + 1)}


@cache
def project() -> Tree:
    """The project's own modules."""
    return Tree(ROOT)


@cache
def layers(parent: str) -> dict[str, int]:
    """The layer of every room below ``parent``."""
    return {
        room: layer
        for layer, rooms in enumerate(ROOMS[parent])
        for room in rooms.removeprefix(GROUND).split()
    }


def room(module: str, parent: str) -> str | None:
    """The room below ``parent`` that a module belongs to; None: it has no place.

    A room may be named in two steps (``policy.policy``) where a folder spans layers.
    """
    inner = module.removeprefix(parent).removeprefix(".") + "."
    found = [name for name in layers(parent) if inner.startswith(f"{name}.")]
    return max(found, key=len, default=None)


def shared(module: str, target: str) -> str:
    """The innermost room with an order that both modules are in."""
    above = [name for name in ROOMS if f"{module}.".startswith(name and f"{name}.")]
    return max((name for name in above if f"{target}.".startswith(name and f"{name}.")), key=len)


def misdirected(module: str, target: str) -> str:
    """Why ``module`` may not import ``target``; empty: it may."""
    other = target.split(".")[0]
    if other == "tests":
        return "tests are no library"
    if other == "mininet" and not module.startswith("testbed.emulated"):
        return "only testbed.emulated knows Mininet"
    if other not in PACKAGES:
        return ""
    if any(module.startswith(a) and target.startswith(b) for a, b in STRANGERS.items()):
        return "the two testbeds know nothing of each other"
    parent = shared(module, target)
    if target == parent:
        return "" if module == target else f"import the module, not the package {target}"
    own, theirs = room(module, parent), room(target, parent)
    if own is None or theirs is None or own == theirs:
        return ""  # a module without a place is reported once, by itself
    rank, lower = layers(parent)[own], layers(parent)[theirs]
    if lower < rank or (lower == rank and ROOMS[parent][rank].startswith(GROUND)):
        return ""
    return f"{theirs} lies {'beside' if lower == rank else 'above'} {own}"


def homeless(module: str) -> str:
    """The room in whose order this module has no place; empty: there is none."""
    for parent in filter(None, ROOMS):
        inner = module.removeprefix(f"{parent}.")
        spanning = any(name.startswith(f"{inner}.") for name in layers(parent))
        if inner != module and not spanning and room(module, parent) is None:
            return parent
    return ""


def forbidden(module: str, node: ast.expr) -> str:
    """Why this expression is not allowed in ``module``; empty: it is."""
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name in UNSAFE_CALLS:
            return f"{name}() is forbidden"
        for option in node.keywords:
            value = option.value
            if option.arg in UNSAFE_OPTIONS and getattr(value, "value", True) is not False:
                return f"{option.arg}= is forbidden"
    if isinstance(node, ast.Attribute):
        name = ast.unparse(node)
        if name in UNORDERED and module.startswith(("geojax.", "testbed.simulated")):
            return f"{name} goes by memory address"
        if name in CLOCKS and module.startswith(ON_LOOP_TIME):
            return f"{name}: the only clock here is the event loop's"
    return ""


def faults(tree: Tree) -> Iterator[str]:
    """Every violation in the tree, as ``path:line: why``."""
    for module, items in tree.imports.items():
        path = tree.paths[module]
        if parent := homeless(module):
            yield f"{path}:1: {module} has no place in ROOMS[{parent!r}] yet"
        for item in items:
            if reason := misdirected(module, item.target):
                yield f"{path}:{item.line}: imports {item.target}: {reason}"
            if item.target.split(".")[0] in UNSAFE_MODULES:
                yield f"{path}:{item.line}: imports {item.target}: forbidden"
        for node in ast.walk(tree.sources[module]):
            if isinstance(node, ast.expr) and (reason := forbidden(module, node)):
                yield f"{path}:{node.lineno}: {reason}"
        chain = [] if may_load_jax(module) else tree.loads_jax(module)
        if chain:
            yield f"{path}:1: loads JAX: {' -> '.join(chain)}"
    yield from cycles(tree)


def may_load_jax(module: str) -> bool:
    """Whether loading this module may load JAX."""
    return module.startswith(WITH_JAX) and module not in BUT_NOT


def cycles(tree: Tree) -> Iterator[str]:
    """A cycle among the imports that run at load, if there is one."""
    graph = {
        module: {item.target for item in items if item.at_load and item.target != module}
        & tree.sources.keys()
        for module, items in tree.imports.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield f"import cycle: {' -> '.join(reversed(error.args[1]))}"


def test_imports_point_downward():
    tree = project()
    assert len(tree.sources) > 20
    found = list(faults(tree))
    assert not found, "\n".join(["", *found])


LOAD_ALL = """
import importlib, sys
for name in sys.argv[1].split():
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:  # an optional extra
        assert error.name.split(".")[0] == "mininet", error
    loaded = set(sys.argv[2].split()) & sys.modules.keys()
    assert not loaded, (name, loaded)
"""


def test_processes_without_training_never_load_jax():
    modules = [name for name in project().sources if not may_load_jax(name)]
    command = [sys.executable, "-c", LOAD_ALL, " ".join(modules), " ".join(sorted(JAX))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


BAD = [
    ("geojax/wire/tcp.py", "from geojax.hips import worker", "hips lies above wire"),
    ("geojax/wire/tcp.py", "import geojax.overlay.view", "overlay lies beside wire"),
    ("geojax/sync/fsa.py", "def f():\n    from geojax.node import main", "node lies above sync"),
    ("geojax/errors.py", "from .wire import tcp", "wire lies above errors"),
    ("geojax/hips/roles/worker.py", "from ...node import main", "node lies above hips"),
    ("geojax/hips/__init__.py", "from .. import node", "node lies above hips"),
    ("geojax/hips/roles/worker.py", "import testbed.wan.build", "testbed lies above geojax"),
    ("geojax/hips/roles/worker.py", "import mininet.net", "only testbed.emulated knows Mininet"),
    ("geojax/tools.py", "", "geojax.tools has no place in ROOMS"),
    ("geojax/data/mnist.py", "import_module('geojax.center.pace')", "center lies above data"),
    ("testbed/wan/build.py", "import experiments.train", "experiments lies above testbed"),
    ("testbed/simulated/run.py", "import testbed.emulated.wan", "emulated lies above"),
    ("testbed/emulated/wan.py", "import testbed.simulated.run", "know nothing of each other"),
    ("testbed/local/run.py", "import testbed.emulated.wan", "emulated lies above local"),
    ("testbed/wan/build.py", "import testbed", "not the package testbed"),
    ("testbed/tools.py", "", "testbed.tools has no place in ROOMS"),
    ("geojax/hips/cluster.py", "import geojax.hips.roles.worker", "roles lies above cluster"),
    ("geojax/hips/exchange/tree.py", "from ..control import member", "control lies above exchange"),
    (
        "geojax/hips/control/member.py",
        "import geojax.hips.storage.x",
        "storage lies beside control",
    ),
    (
        "geojax/overlay/policy/policy.py",
        "import geojax.overlay.routes.x",
        "lies above policy.policy",
    ),
    (
        "geojax/overlay/policy/estimate.py",
        "import geojax.overlay.policy.planning",
        "policy.planning",
    ),
    ("geojax/machine/waits.py", "import geojax.wire.tcp", "wire lies beside machine"),
    ("geojax/awareness/views.py", "import geojax.hips.roles.worker", "hips lies above awareness"),
    ("experiments/runs/rows.py", "import experiments.train.job", "train lies above runs"),
    (
        "testbed/wan/build.py",
        "import jax.numpy as jnp",
        "loads JAX: testbed.wan.build -> jax.numpy",
    ),
    ("testbed/wan/build.py", "import geojax.center.trainer", "geojax.center.trainer -> jax"),
    ("geojax/center/pace.py", "import optax", "loads JAX"),
    ("geojax/wire/tcp.py", "import geojax.wire.other", "import cycle"),
    ("geojax/wire/tcp.py", "import pickle", "imports pickle"),
    ("geojax/wire/tcp.py", "from cloudpickle import dumps", "imports cloudpickle"),
    ("geojax/wire/tcp.py", "eval('1')", "eval() is forbidden"),
    ("testbed/wan/build.py", "run('ls', shell=True)", "shell= is forbidden"),
    ("geojax/data/mnist.py", "np.load('x', allow_pickle=True)", "allow_pickle= is forbidden"),
    ("geojax/wire/tcp.py", "await_ = asyncio.wait", "memory address"),
    ("geojax/hips/roles/worker.py", "now = time.monotonic()", "the event loop's"),
]
GOOD = {
    "geojax/__init__.py": "",
    "geojax/errors.py": "",
    "geojax/hips/__init__.py": "",
    "geojax/hips/roles/worker.py": "import geojax.sync.fsa\nfrom geojax.wire.tcp import x",
    "geojax/wire/__init__.py": "from geojax.wire.tcp import x",
    "geojax/wire/tcp.py": "from geojax.errors import WireError",
    "geojax/wire/other.py": "import geojax.wire.tcp",
    "geojax/sync/fsa.py": "def f():\n    import jax\n    return model.eval()",
    "geojax/center/trainer.py": "import jax",
    "geojax/center/pace.py": "def f():\n    import geojax.center.trainer",
    "geojax/data/mnist.py": "import time\nsubprocess.run(['ls'], shell=False)",
    "geojax/node.py": "from geojax.hips import worker",
    "testbed/wan/build.py": "from geojax.errors import ConfigError",
    "testbed/emulated/wan.py": "import mininet.net\nimport testbed.wan.build, testbed.local.run",
    "testbed/simulated/run.py": "import geojax.hips.roles.worker",
    "experiments/train/__main__.py": "import testbed.wan.build, geojax.node",
}


def write_tree(root: Path, files: dict[str, str]) -> Tree:
    for name, source in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source)
    return Tree(root)


def test_checker_accepts_a_good_tree(tmp_path):
    assert list(faults(write_tree(tmp_path, GOOD))) == []


@pytest.mark.parametrize(("path", "source", "expected"), BAD)
def test_checker_finds_each_fault(tmp_path, path, source, expected):
    found = list(faults(write_tree(tmp_path, {**GOOD, path: source})))
    assert any(expected in fault for fault in found), found
