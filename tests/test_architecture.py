"""The house: imports point only at rooms above, and files stay small.

Rooms are files and folders of `vqvae_jax`, top to bottom; inside a folder files may
import each other, without cycles.
"""

import ast
import functools
import sys
from pathlib import Path

import pytest

import vqvae_jax

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vqvae_jax"
ROOMS = (
    "compilation",
    "errors",
    "files",
    "forms",
    "distributed",
    "locks",
    "arrays",
    "config",
    "quantizer",
    "likelihoods",
    "metrics",
    "image_quality",
    "networks",
    "sampling",
    "models",
    "codec",
    "data",
    "training",
    "experiment",
    "workdir",
    "pretrained",
    "evaluation",
    "report",
    "stages",
    "suite",
    "command",
    "commands",
    "__main__",
)
LONGEST = 350


def name_of(path: Path) -> str:
    """The dotted name of a module: "vqvae_jax.data.codes", "launch"."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = sorted(PACKAGE.rglob("*.py"))
NAMES = {name_of(path): path for path in SOURCES}
MODULES = [path for path in SOURCES if path.name != "__init__.py"]
SCRIPTS = [ROOT / "launch.py", *sorted((ROOT / "experiments").glob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Return all names that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they point"
            # `from vqvae_jax import metrics` names a module, others a thing in one.
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in NAMES else node.module)
    return frozenset(found)


def internal(path: Path) -> set[str]:
    """Return the modules of this package that a file imports."""
    return {name for name in imports(path) if name.split(".")[0] == "vqvae_jax"}


def packages(path: Path) -> set[str]:
    """Return the first parts of all that a file imports."""
    return {name.split(".")[0] for name in imports(path)}


def room(name: str) -> str:
    return name.split(".")[1]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_file_has_a_room():
    assert {room(name_of(path)) for path in MODULES} == set(ROOMS)


def test_imports_point_up():
    back = [
        f"{relative(path)} imports {name}"
        for path in SOURCES
        for name in internal(path)
        if name_of(path) != "vqvae_jax"
        and (
            name == "vqvae_jax"
            or ROOMS.index(room(name)) > ROOMS.index(room(name_of(path)))
        )
    ]
    assert not back


def test_there_is_no_cycle():
    """Inside a room too; `vqvae_jax/__init__.py` imports what it offers on use."""
    done = {"vqvae_jax"}

    def visit(name, above):
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for other in internal(NAMES[name]):
                visit(other, (*above, name))
            done.add(name)

    for name in NAMES:
        visit(name, ())


def test_the_quantizer_needs_jax_alone():
    files = list((PACKAGE / "quantizer").glob("*.py"))
    assert {room(name) for path in files for name in internal(path)} == {"quantizer"}
    external = {name for path in files for name in packages(path)} - {"vqvae_jax"}
    assert external - sys.stdlib_module_names == {"jax", "jaxtyping"}


def test_training_knows_no_model_and_no_data():
    rooms = {room(n) for p in (PACKAGE / "training").glob("*.py") for n in internal(p)}
    assert rooms <= {"distributed", "errors", "metrics", "quantizer", "training"}


def test_what_users_import_is_there():
    for name in vqvae_jax.__all__:
        assert getattr(vqvae_jax, name).__name__.endswith(name)
    with pytest.raises(AttributeError, match="has no attribute 'VQGAN'"):
        _ = vqvae_jax.VQGAN


def test_one_file_imports_orbax():
    users = {relative(path) for path in SOURCES + SCRIPTS if "orbax" in packages(path)}
    assert users == {"vqvae_jax/training/manager.py"}


def test_nothing_is_pickled():
    picklers = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    users = [relative(p) for p in SOURCES + SCRIPTS if packages(p) & picklers]
    assert not users


def test_experiments_import_nothing_of_the_package():
    assert not [relative(path) for path in SCRIPTS[1:] if internal(path)]


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_module_has_tests(path):
    """In the same folder of `tests`, in a file whose name contains the module's."""
    folder = ROOT / "tests" / path.relative_to(PACKAGE).parent
    assert [test for test in folder.glob("test_*.py") if path.stem in test.stem]


def test_files_stay_small():
    lengths = {
        relative(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in SOURCES + SCRIPTS + TESTS
    }
    assert not {path: n for path, n in lengths.items() if n >= LONGEST}
