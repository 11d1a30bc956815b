"""The layout of the package: imports point one way, and tasks can be deleted.

Rooms are the files and folders of `vqvae_jax`; each may import itself and those listed
before it. tests/quantizers/test_dependencies.py checks what quantizers import,
tests/test_registry.py that only the registry branches on a kind, and
tests/test_deletion.py that the rest works without a task.
"""

import ast
import functools
import sys
from pathlib import Path

import pytest

import vqvae_jax
from vqvae_jax import registry

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vqvae_jax"
ROOMS = (
    "runtime",
    "options",
    "registry",
    "quantizers",
    "likelihoods",
    "metrics",
    "image_quality",
    "networks",
    "sampling",
    "models",
    "data",
    "training",
    "experiment",
    "workdir",
    "report",
    "pipeline",
    "pretrained",
    "cli",
    "tasks",
    "contrib",
    "experiments",
    "__main__",
)
# Rooms whose folders are independent of each other.
SLICED = ("tasks", "contrib")


def name_of(path: Path) -> str:
    """Return the dotted name of a module: "vqvae_jax.data.codes"."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "experiments":  # It is installed inside the package.
        parts = ("vqvae_jax", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "experiments").glob("*.py")])
NAMES = {name_of(path): path for path in SOURCES}
# Imports of the package itself are for type checkers.
INNER = {name: path for name, path in NAMES.items() if name != "vqvae_jax"}


@functools.cache
def syntax(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Return the names of modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its target"
            # `from vqvae_jax import metrics` imports a module.
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in NAMES else node.module)
    return frozenset(found)


def internal(path: Path) -> set[str]:
    """Return the modules of this package that a file imports."""
    return {name for name in imports(path) if name.split(".")[0] == "vqvae_jax"}


def packages(path: Path) -> set[str]:
    """Return the top-level packages that a file imports."""
    return {name.split(".")[0] for name in imports(path)}


def room(name: str) -> str:
    """Return the room of a module, "" for the package itself."""
    return name.split(".")[1] if "." in name else ""


def slice_of(name: str) -> str:
    """Return the task or the folder of contrib that a module is in, "" for others."""
    parts = name.split(".")
    is_inside = len(parts) > 2 and parts[1] in SLICED
    return ".".join(parts[1:3]) if is_inside else ""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_module_is_in_a_room():
    assert {room(name) for name in INNER} <= set(ROOMS)
    # Folders of tasks may be deleted.
    assert {room(name) for name in INNER} >= set(ROOMS) - set(SLICED)


def test_imports_point_one_way():
    wrong = [
        f"{relative(path)} imports {imported}"
        for name, path in INNER.items()
        for imported in internal(path)
        if not room(imported) or ROOMS.index(room(imported)) > ROOMS.index(room(name))
    ]
    assert not wrong


def test_imports_have_no_cycle():
    done = {"vqvae_jax"}

    def visit(name, above):
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for imported in internal(NAMES[name]):
                visit(imported, (*above, name))
            done.add(name)

    for name in INNER:
        visit(name, ())


def test_slices_are_imported_by_themselves_alone():
    wrong = [
        f"{relative(path)} imports {imported}"
        for path in [*INNER.values(), ROOT / "launch.py"]
        for imported in internal(path)
        if slice_of(imported) and slice_of(imported) != slice_of(name_of(path))
    ]
    assert not wrong


def test_the_registry_alone_names_slices():
    """In strings, which are imported when they are used."""
    prefixes = tuple(f"vqvae_jax.{name}." for name in SLICED)
    wrong = [
        f"{relative(path)}: {node.value}"
        for name, path in INNER.items()
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.Constant) and str(node.value).startswith(prefixes)
        if name != "vqvae_jax.registry" and slice_of(name) != slice_of(node.value)
    ]
    assert not wrong


def test_the_registry_and_options_import_no_other_room():
    assert internal(PACKAGE / "registry.py") == set()
    assert internal(PACKAGE / "options.py") == {"vqvae_jax.runtime.errors"}


def test_training_imports_no_model_and_no_data():
    files = list((PACKAGE / "training").glob("*.py"))
    allowed = {"runtime", "options", "metrics", "quantizers", "training"}
    assert {room(name) for path in files for name in internal(path)} <= allowed


def test_experiments_import_only_what_makes_configs():
    files = list((ROOT / "experiments").glob("*.py"))
    assert len(files) > 2
    for path in files:
        # jax, flax and the rest are imported through the dataclasses that they name.
        external = packages(path) - {"vqvae_jax"} - sys.stdlib_module_names
        assert external <= {"ml_collections"}, path
        names = internal(path)
        if path.name == "base.py":
            names -= {"vqvae_jax.experiment", "vqvae_jax.options"}
        assert {room(name) for name in names} <= {"experiments"}, path


def test_one_file_imports_orbax():
    users = {relative(path) for path in SOURCES if "orbax" in packages(path)}
    assert users == {"vqvae_jax/training/checkpoints.py"}


def test_nothing_is_pickled():
    picklers = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    users = [relative(path) for path in SOURCES if packages(path) & picklers]
    assert not users


def uses_files_of(path: Path) -> bool:
    """Return whether a module calls the methods of a path that read or write it.

    The functions of `safe_io` have the same names, and a path as an argument.
    """
    arguments = {"read_text": 0, "read_bytes": 0, "write_text": 1, "write_bytes": 1}
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and arguments.get(node.func.attr) == len(node.args)
        for node in ast.walk(syntax(path))
    )


def test_one_module_reads_and_writes_files():
    users = {relative(path) for path in SOURCES if uses_files_of(path)}
    # The first reads the package's own experiments.
    assert users <= {"vqvae_jax/cli/train.py"}


@pytest.mark.parametrize("name", vqvae_jax.__all__)
def test_public_names_exist(name):
    path = vqvae_jax._PATHS[name]
    if not registry.is_available(path):
        pytest.skip(f"{path} is deleted")
    assert getattr(vqvae_jax, name).__name__.endswith(name)


def test_unknown_names_raise():
    with pytest.raises(AttributeError, match="has no attribute 'VQGAN'"):
        _ = vqvae_jax.VQGAN
