"""Holds the import rules of the package by reading its source; nothing is imported here."""

import ast
import functools
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "elenas_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))
EVERYTHING = [
    *MODULES,
    *(path for folder in ("scripts", "configs", "tests") for path in sorted((ROOT / folder).rglob("*.py"))),
]
MAX_LINES = 450

# Which layer may import which; what a layer may import it may reach through, so imports go down
# only. Every layer may import `types`; nothing imports scripts.
ARROWS = {
    "ops": (),
    "tasks": (),
    "graphs": ("ops",),
    "spaces": ("graphs", "ops"),
    "policies": ("graphs",),
    "surrogates": ("graphs",),
    "strategies": ("spaces", "policies", "surrogates"),
    "evaluation": ("spaces", "graphs", "tasks"),
    "experiment": ("strategies", "evaluation", "tasks", "spaces"),
    "analysis": ("graphs",),
}
# Single modules that a layer may import besides.
EXCEPTIONS = {"analysis": ("elenas_jax.experiment.run_dir", "elenas_jax.experiment.best_first")}

# A library and the only place that knows it: a folder or a file of the package.
OWNERS = {
    "matplotlib": "analysis",
    "orbax": "experiment/checkpoint.py",
    "sqlite3": ("experiment", "analysis"),
    "tensorboardX": "experiment",
}
FORBIDDEN = ("tensorflow", "torch", "pickle", "cloudpickle", "dill", "shelve", "marshal")
DEVICE_NAMES = (
    "jax.pmap",
    "jax.devices",
    "jax.local_devices",
    "jax.device_count",
    "jax.local_device_count",
    "jax.shard_map",
    "jax.make_mesh",
    "jax.experimental.shard_map",
    "jax.sharding",
)
# Tables of names. Objects are made from them in build.py; config.py checks names and settings.
TABLES = ("SPACES", "STRATEGIES", "TASKS")
TABLE_READERS = ("experiment/build.py", "experiment/config.py")


def name_of(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def layer_of(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def parse(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


@functools.cache
def imported(path: pathlib.Path) -> frozenset[str]:
    """Returns dotted names of all that is imported, also inside functions: "a.b" and "a.b.name"."""
    names = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: imports are absolute here"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def dotted(node: ast.AST) -> str:
    """Returns "a.b.c" of an attribute chain on a name, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def reachable(layer: str) -> set[str]:
    below = set(ARROWS[layer])
    return below.union(*(reachable(lower) for lower in below))


def inside(path: pathlib.Path, owner: str | tuple[str, ...]) -> bool:
    owners = (owner,) if isinstance(owner, str) else owner
    place = path.relative_to(PACKAGE).as_posix()
    return any(place == one or place.startswith(f"{one}/") for one in owners)


modules = pytest.mark.parametrize("path", MODULES, ids=name_of)


def test_layers_are_known():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders <= set(ARROWS)


@modules
def test_imports_go_down_only(path):
    layer = layer_of(path)
    ours = {name for name in imported(path) if name.split(".")[0] == "elenas_jax"}
    if layer == "__init__":  # the package's table of contents
        return
    for name in ours - {"elenas_jax"}:
        below = name.split(".")[1]
        if below == "types" or below == layer:
            continue
        assert layer in ARROWS, f"{name_of(path)} belongs to no layer and imports {name}"
        is_exception = any(name == one or name.startswith(f"{one}.") for one in EXCEPTIONS.get(layer, ()))
        # `from elenas_jax.experiment import run_dir` names the parent as well as the module.
        is_parent = any(one.startswith(f"{name}.") and one in ours for one in EXCEPTIONS.get(layer, ()))
        assert below in reachable(layer) or is_exception or is_parent, f"{name_of(path)} imports {name}"


@modules
def test_libraries_have_one_owner(path):
    for name in imported(path):
        library = name.split(".")[0]
        assert library not in FORBIDDEN, f"{name_of(path)} imports {name}"
        if library in OWNERS:
            assert inside(path, OWNERS[library]), f"{name_of(path)} imports {name}"


@modules
def test_only_parallel_touches_devices(path):
    if inside(path, "evaluation/parallel.py"):
        return
    used = {dotted(node) for node in ast.walk(parse(path)) if isinstance(node, ast.Attribute)}
    touched = {name for name in used | imported(path) if name.startswith(DEVICE_NAMES)}
    assert not touched, f"{name_of(path)} uses {', '.join(sorted(touched))}"


@modules
def test_only_the_experiment_looks_names_up(path):
    for table in TABLES:
        named = {name for name in imported(path) if name.endswith(f".{table}")}
        is_owner = path.name == "__init__.py" and layer_of(path) == table.lower()
        assert not named or is_owner or inside(path, TABLE_READERS), (
            f"{name_of(path)} imports {', '.join(named)}"
        )


@modules
def test_arrays_are_loaded_without_pickle(path):
    keywords = {node.arg for node in ast.walk(parse(path)) if isinstance(node, ast.keyword)}
    assert "allow_pickle" not in keywords


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_modules_are_one_idea_and_say_which(path):
    assert path.stem not in ("utils", "util", "common", "helpers", "misc"), "a name that says what is inside"
    is_test = "tests" in path.relative_to(ROOT).parts
    assert is_test or ast.get_docstring(parse(path)), f"{name_of(path)} has no docstring"
    num_lines = len(path.read_text().splitlines())
    assert num_lines <= MAX_LINES, f"{name_of(path)} has {num_lines} lines; one idea a module"


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("*.py")), ids=name_of)
def test_scripts_do_not_import_each_other(path):
    assert not {name for name in imported(path) if name.split(".")[0] in ("scripts", "tests")}
