"""The imports of the quantizers: JAX, jaxtyping and nothing else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vqvae_jax

PACKAGE = Path(vqvae_jax.__file__).parent
SOURCES = sorted((PACKAGE / "quantizers").glob("*.py"))
EXTERNAL = {"jax", "jaxtyping"}
INTERNAL = {"vqvae_jax.options", "vqvae_jax.runtime.errors"}
# The Flax modules, which `quantizers` does not import.
WRAPPERS = {"linen.py", "nnx.py"}


def imports(path):
    """Return the dotted names that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            # `from vqvae_jax import options` imports a module.
            is_root = node.module == "vqvae_jax"
            names |= {
                f"vqvae_jax.{alias.name}" if is_root else node.module
                for alias in node.names
            }
    return names


def test_importing_the_quantizers_loads_neither_flax_nor_optax():
    script = (
        "import sys; from vqvae_jax import quantizers; "
        "print([m for m in ('flax', 'optax', 'orbax', 'tensorflow_datasets', 'grain')"
        " if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_sources_import_jax_and_jaxtyping_alone(path):
    allowed = EXTERNAL | ({"flax"} if path.name in WRAPPERS else set())
    found = imports(path)
    external = {name.split(".")[0] for name in found} - sys.stdlib_module_names
    assert external - {"vqvae_jax"} <= allowed
    internal = {name for name in found if name.split(".")[0] == "vqvae_jax"}
    room = "vqvae_jax.quantizers"
    own = {name for name in internal if f"{name}.".startswith(f"{room}.")}
    assert internal - own <= INTERNAL


def test_only_the_flax_modules_are_wrappers():
    names = {path.name for path in SOURCES}
    assert names >= WRAPPERS
    wrappers = {f"vqvae_jax.quantizers.{Path(name).stem}" for name in WRAPPERS}
    for path in SOURCES:
        assert not imports(path) & wrappers
