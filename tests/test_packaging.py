"""The metadata of the package: dependencies, extras, packages and installed files."""

import ast
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

import vqvae_jax
from vqvae_jax.cli import main
from vqvae_jax.runtime import extras

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETTINGS["project"]
CORE = {"dm-pix", "flax", "jax", "jaxtyping", "numpy", "optax", "safetensors"}
# Distributions whose name differs from that of the module.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl-py",
    "axe_playwright_python": "axe-playwright-python",
    "haiku": "dm-haiku",
    "orbax": "orbax-checkpoint",
    "sklearn": "scikit-learn",
    "xdist": "pytest-xdist",
}
# Imported if the user has installed them; no extra has them.
NO_EXTRA = {"wandb"}
# Packages that only tools and tests of a checkout need.
TOOLS = {"axe-playwright-python", "beartype", "playwright", "pytest", "ruff"}


def name_of(requirement: str) -> str:
    """Return the normalised name of a requirement."""
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def names(requirements) -> set[str]:
    return {name_of(requirement) for requirement in requirements}


EXTRAS = {name: names(each) for name, each in PROJECT["optional-dependencies"].items()}


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.partition(".")[0]


def distribution(module: str) -> str:
    return DISTRIBUTIONS.get(module, module).lower().replace("_", "-")


def third_party(folder: Path) -> set[str]:
    """Return the modules that a folder imports from other distributions."""
    found = {module for path in folder.rglob("*.py") for module in imported(path)}
    return found - set(sys.stdlib_module_names) - {"vqvae_jax"}


class TestDependencies:
    def test_the_core_is_small(self):
        assert names(PROJECT["dependencies"]) == CORE

    def test_the_extras(self):
        heavy = {"prepare", "speech", "worlds", "codec", "hub", "cuda", "tpu", "dev"}
        assert set(EXTRAS) == heavy | {"train"}
        assert EXTRAS["prepare"] == {"tensorflow-cpu", "tensorflow"}
        assert EXTRAS["dev"] >= TOOLS

    def test_a_package_is_listed_once(self):
        listed = [*CORE, *(name for each in EXTRAS.values() for name in each)]
        # The extras for accelerators add to jax.
        once = [name for name in listed if name != "jax"]
        assert len(once) == len(set(once))

    @pytest.mark.parametrize("folder", ["vqvae_jax", "experiments"])
    def test_every_import_is_listed(self, folder):
        listed = CORE.union(*(EXTRAS[name] for name in EXTRAS if name != "dev"))
        modules = third_party(ROOT / folder) - NO_EXTRA
        assert {each for each in modules if distribution(each) not in listed} == set()

    def test_every_import_of_the_tests_is_listed(self):
        local = {path.stem for path in (ROOT / "tests").rglob("*.py")} | {"benchmarks"}
        modules = third_party(ROOT / "tests") - NO_EXTRA - local
        listed = CORE.union(*EXTRAS.values())
        assert {each for each in modules if distribution(each) not in listed} == set()

    def test_every_package_of_train_is_imported(self):
        used = {distribution(module) for module in third_party(ROOT / "vqvae_jax")}
        # tensorflow-datasets imports it.
        assert EXTRAS["train"] - used == {"importlib-resources"}

    def test_the_library_imports_the_core(self):
        """Other modules of a folder may be optional; those of these are not."""
        for folder in ("likelihoods", "models", "networks", "quantizers", "sampling"):
            modules = third_party(ROOT / "vqvae_jax" / folder)
            assert {distribution(module) for module in modules} <= CORE, folder

    def test_errors_of_the_command_line_name_the_extra(self):
        for module, extra in extras.EXTRAS.items():
            assert distribution(module) in EXTRAS[extra], module
        listed = EXTRAS["train"] | EXTRAS["codec"]
        modules = third_party(ROOT / "vqvae_jax")
        needed = {each for each in modules if distribution(each) in listed}
        assert needed <= set(extras.EXTRAS)

    def test_requirements_install_the_checkout(self):
        text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
        (line,) = [each for each in text.splitlines() if not each.startswith("#")]
        named = re.fullmatch(r"-e \.\[([\w,]+)\]", line)[1].split(",")
        assert set(EXTRAS) - set(named) == {"hub", "cuda", "tpu"}

    def test_constraints_pin_every_package(self):
        text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
        pins = [each for each in text.splitlines() if not each.startswith("#")]
        installed = set(EXTRAS) - {"hub", "cuda", "tpu"}
        needed = CORE.union(*(EXTRAS[name] for name in installed))
        # Only on a Mac, where CI has not run.
        assert needed - names(pins) == {"tensorflow"}


class TestMetadata:
    def test_one_version(self):
        citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
        assert f"\nversion: {PROJECT['version']}\n" in citation

    def test_the_version_is_that_of_the_installed_package(self):
        try:
            expected = importlib.metadata.version("vqvae_jax")
        except importlib.metadata.PackageNotFoundError:
            expected = "0+unknown"
        assert vqvae_jax.__version__ == expected

    def test_the_version_is_unknown_if_not_installed(self, monkeypatch):
        def missing(name):
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "version", missing)
        assert vqvae_jax.__version__ == "0+unknown"

    def test_the_console_script_exists(self):
        ((script, target),) = PROJECT["scripts"].items()
        module, _, function = target.partition(":")
        assert script == "vqvae-jax"
        assert callable(getattr(importlib.import_module(module), function))


class TestPackages:
    def test_experiments_are_a_package(self):
        from vqvae_jax.experiments import digits

        assert digits.get_config().data.name == "digits"

    def test_experiments_and_weights_are_mapped(self):
        folders = SETTINGS["tool"]["setuptools"]["package-dir"]
        expected = {f"vqvae_jax.{each}": each for each in ("experiments", "weights")}
        assert folders == expected

    def test_every_folder_is_a_package(self):
        """The search for packages skips folders without `__init__.py`."""
        folders = {path.parent for path in (ROOT / "vqvae_jax").rglob("*.py")}
        assert not [each for each in folders if not (each / "__init__.py").exists()]


class TestMissingExtra:
    """The command line without an extra: one line and exit code 2."""

    @pytest.fixture
    def missing(self, monkeypatch):
        def hide(module: str) -> None:
            def run(arguments):
                raise ModuleNotFoundError(f"No module named {module!r}", name=module)

            monkeypatch.setattr(main, "_run", run)

        return hide

    @pytest.mark.parametrize(
        ("module", "line"),
        [
            (
                "ml_collections.config_flags",
                "error: this command needs ml_collections, which is not installed: "
                "pip install 'vqvae_jax[train]'\n",
            ),
            (
                "constriction",
                "error: this command needs constriction, which is not installed: "
                "pip install 'vqvae_jax[codec]'\n",
            ),
        ],
    )
    def test_names_the_extra(self, missing, capsys, module, line):
        missing(module)
        assert main.main(["train"]) == 2
        assert capsys.readouterr().err == line

    def test_launch_names_the_extra(self):
        script = "import runpy, sys; sys.modules['grain'] = None; "
        script += "runpy.run_path('launch.py', run_name='__main__')"
        found = subprocess.run(
            [sys.executable, "-c", script, "--config=digits"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert (found.returncode, found.stderr) == (
            2,
            "error: this command needs grain, which is not installed: "
            "pip install 'vqvae_jax[train]'\n",
        )

    @pytest.mark.parametrize("module", ["vqvae_jax.nosuch", "nosuch", None])
    def test_another_module_is_a_bug(self, missing, module):
        missing(module)
        with pytest.raises(ModuleNotFoundError):
            main.main(["sample"])


SCRIPT = """
import sys
from importlib import metadata, resources

from vqvae_jax import quantizers

# Modules, with `import a.b` counted as a.
print(sorted({name.partition(".")[0] for name in sys.modules} & {"flax", "optax"}))
quantizers.VQ(num_codes=8, dim=4)

import vqvae_jax

assert "site-packages" in vqvae_jax.__file__, vqvae_jax.__file__
print(vqvae_jax.__version__)
print(len(vqvae_jax.restore("model.safetensors")))
print(type(vqvae_jax.restore("cifar10", "prior")[0]).__name__)
package = resources.files("vqvae_jax")
for name in ("py.typed", "report/style.css", "report/page.js",
             "contrib/playground/playground.js", "experiments/digits.py"):
    assert (package / name).is_file(), name
assert not (package / "experiments" / "colab.ipynb").is_file()
print(sorted({each.name.lower() for each in metadata.distributions()}))
"""
UNWANTED = {"grain", "keras", "ml_collections", "playwright", "pytest", "ruff"} | {
    "matplotlib",
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-datasets",
    "vizdoom",
}


def run(*command: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=900, **options
    )


@pytest.fixture
def environment(tmp_path):
    """Yield the folder of a new environment; pytest would keep its 0.8 GB."""
    folder = tmp_path / "env"
    venv.create(folder, with_pip=True)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_install_of_the_core(tmp_path, environment, tiny_model):
    """An installation without extras restores a model and installs no tools."""
    model, (params, _) = tiny_model("vqvae")
    vqvae_jax.save_pretrained((model, params), tmp_path)
    python = environment / "bin" / "python"
    # From a copy: setuptools writes build/ beside the sources.
    files = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
    files += ("experiments", "vqvae_jax", "weights")
    copied = [ROOT / name for name in files]
    source = tmp_path / "source"
    source.mkdir()
    run("cp", "-r", *copied, source, check=True)
    constraints = ROOT / "constraints.txt"
    installed = run(python, "-m", "pip", "install", "-q", source, "-c", constraints)
    assert "subprocess-exited-with-error" not in installed.stderr, installed.stderr
    if installed.returncode:
        pytest.skip(f"pip cannot install: {installed.stderr.strip()[-300:]}")
    clean = {key: v for key, v in os.environ.items() if key != "PYTHONPATH"}
    done = run(python, "-c", SCRIPT, cwd=tmp_path, env=clean)
    assert done.returncode == 0, done.stderr
    heavy, version, pair, prior, packages = done.stdout.splitlines()
    assert (heavy, version) == ("[]", PROJECT["version"])
    assert (pair, prior) == ("2", "Prior")
    assert set(ast.literal_eval(packages)) & UNWANTED == set()
    command = environment / "bin" / "vqvae-jax"
    for arguments in (["train", "--config", "digits"], ["sample", "m", "out"]):
        done = run(command, *arguments, cwd=tmp_path, env=clean)
        assert done.returncode == 2
        assert re.fullmatch(
            r"error: .* pip install 'vqvae_jax\[train\]'\n", done.stderr
        )
