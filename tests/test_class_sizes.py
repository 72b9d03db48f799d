"""No class of geojax does too much: its constructor and its attributes stay few.

Records (dataclasses, NamedTuples) and protocols are not counted: they have as many fields as what
they describe.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "geojax"
MOST_ARGUMENTS, MOST_ATTRIBUTES = 11, 19
NAMED = ("Epochs", "LocalServer", "Membership", "PushPullExchange", "Scheduler", "TreeExchange")
LARGER = {"FederatedTrainer", "MeshTrainer", "TcpTransport", "Worker"}  # for now
RECORDS = ("NamedTuple", "Protocol", "TypedDict")


def classes(sources):
    """All classes, by name; those of which there are several, once each."""
    found = {}
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(node)
    return found


def base_names(node):
    return [ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases]


def is_record(node, known):
    decorated = any("dataclass" in ast.unparse(each) for each in node.decorator_list)
    above = [each for name in base_names(node) for each in known.get(name, ())]
    return (
        decorated
        or any(name in RECORDS for name in base_names(node))
        or any(is_record(each, known) for each in above if each is not node)
    )


def sizes(node, known):
    """Constructor arguments, and names that are assigned to ``self`` in this class or above it."""
    methods = [
        each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    attributes, arguments = set(), None
    for method in methods:
        if method.name == "__init__":
            arguments = len(method.args.args) - 1 + len(method.args.kwonlyargs)
        own = method.args.args[0].arg if method.args.args else None
        attributes |= {
            each.attr
            for each in ast.walk(method)
            if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)
            if isinstance(each.value, ast.Name) and each.value.id == own
        }
    for name in base_names(node):
        for above in known.get(name, ()):
            if above is not node:
                more, inherited = sizes(above, known)
                arguments = more if arguments is None else arguments
                attributes |= inherited
    return arguments or 0, attributes


def too_large(known):
    for name, nodes in known.items():
        for node in nodes:
            arguments, attributes = (0, ()) if is_record(node, known) else sizes(node, known)
            if arguments > MOST_ARGUMENTS or len(attributes) > MOST_ATTRIBUTES:
                yield name, f"{name}: {arguments} arguments, {len(attributes)} attributes"


def test_no_class_does_too_much():
    known = classes(path.read_text() for path in sorted(ROOT.rglob("*.py")))
    assert set(NAMED) <= known.keys()
    found = [text for name, text in too_large(known) if name not in LARGER]
    assert not found, "\n".join(["", *found])


WIDE = "class A:\n def __init__(self, {}): pass"
DEEP = "class A:\n def f(self):\n  {}"
MANY = "; ".join(f"self.a{at} = 1" for at in range(19))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (WIDE.format(", ".join(f"a{at}" for at in range(11))), False),
        (WIDE.format(", ".join(f"a{at}" for at in range(12))), True),
        (WIDE.format("*, " + ", ".join(f"a{at}" for at in range(12))), True),
        (DEEP.format(MANY), False),
        (DEEP.format(f"{MANY}; self.a0 = 2"), False),
        (DEEP.format(f"{MANY}; self.b, c = 1, 2"), True),
        (f"{DEEP.format(MANY)}\nclass B(A):\n def g(self):\n  self.b: int = 1", True),
        ("@dataclass\nclass A:\n" + "".join(f" a{at}: int\n" for at in range(30)), False),
        ("class A(NamedTuple):\n" + "".join(f" a{at}: int\n" for at in range(30)), False),
    ],
)
def test_the_count_finds_what_is_too_large(source, found):
    assert bool([*too_large(classes([source]))]) == found
