"""The rest of the repository works without a task or a folder of contrib."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from launch_checks import overrides, python

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SLICES = [
    f"{room}/{path.parent.name}"
    for room in ("tasks", "contrib")
    for path in sorted((ROOT / "vqvae_jax" / room).glob("*/__init__.py"))
]
# Without `quantizers`: no file there imports a task or contrib (test_dependencies).
RUN_WITHOUT_SLICES = ("models", "pipeline", "report", "cli", "pretrained")
IMPORT_ALL = """
import importlib
import pkgutil
import sys

import vqvae_jax
from vqvae_jax.cli import train

train.import_experiments()
experiments = importlib.import_module("vqvae_jax.experiments")
for package in (vqvae_jax, experiments):
    assert package.__file__.startswith(sys.argv[1]), package.__file__
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        print(module.name)
        importlib.import_module(module.name)
"""


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The files of the repository, including those that are not committed yet."""
    options = ("--cached", "--others", "--exclude-standard")
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", *options],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs a git checkout: {error}")
    names = listed.stdout.split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


@pytest.fixture
def copy_without(tracked, tmp_path):
    """(slices) -> a copy of the repository without them and their tests."""

    def copy(slices) -> Path:
        deleted = tuple(
            f"{top}/{each}/" for each in slices for top in ("vqvae_jax", "tests")
        )
        target = tmp_path / "copy"
        for name in tracked:
            if not name.startswith(deleted):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, target / name)
        for each in slices:
            assert not (target / "vqvae_jax" / each).exists()
        return target

    return copy


def run(copy: Path, *words) -> subprocess.CompletedProcess:
    """Run Python in a copy of the repository, which it imports."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    found = python(*words, cwd=copy, env=ours | {"PYTHONPATH": str(copy)})
    assert found.returncode == 0, (found.stdout + found.stderr)[-5000:]
    return found


@pytest.mark.parametrize("deleted", SLICES)
def test_without_one(deleted, copy_without, tiny_changes, digits_dir, tmp_path):
    copy = copy_without([deleted])
    imported = run(copy, "-c", IMPORT_ALL, copy).stdout.splitlines()
    assert "vqvae_jax.pipeline.run" in imported
    assert "vqvae_jax.experiments.digits" in imported
    assert f"vqvae_jax.{deleted.replace('/', '.')}" not in imported

    changes = tiny_changes | {"data.data_dir": digits_dir}
    flags = ["--config=digits", f"--workdir={tmp_path / 'run'}", *overrides(changes)]
    run(copy, "launch.py", *flags)
    assert (tmp_path / "run" / "report.html").exists()

    options = ("--collect-only", "-q", "-m", "", "-p", "no:cacheprovider")
    run(copy, "-m", "pytest", *options)


def test_without_all_of_them(copy_without):
    copy = copy_without(SLICES)
    folders = [f"tests/{name}" for name in RUN_WITHOUT_SLICES]
    options = ("-q", "-n", 2, "--dist", "loadfile", "-p", "no:cacheprovider")
    found = run(copy, "-m", "pytest", *options, *folders)
    assert " passed" in found.stdout
