"""The Colab notebook: what it installs, its committed outputs, and a small run."""

import ast
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parents[1]
PATH = ROOT / "experiments" / "colab.ipynb"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
TAG = "parameters"


@pytest.fixture
def notebook():
    return nbformat.read(PATH, as_version=4)


def code_after(notebook, heading: str) -> str:
    """Return the code cell below a heading."""
    cells = notebook.cells
    (index,) = [i for i, each in enumerate(cells) if f"## {heading}\n" in each.source]
    return cells[index + 1].source


@pytest.fixture
def install(notebook, monkeypatch):
    """Run the install cell where these versions are installed.

    Returns the arguments of pip after its options, and the lines of its constraints.
    """

    def run(versions: dict[str, str], *, directory, repository="", returncode=0):
        calls = []

        def version(name):
            if name not in versions:
                raise metadata.PackageNotFoundError(name)
            return versions[name]

        def call(command):
            end = command.index("-c") + 2
            calls.append((command[end:], Path(command[end - 1]).read_text().split()))
            versions["vqvae_jax"] = "0.2.0"
            return subprocess.CompletedProcess(command, returncode)

        monkeypatch.chdir(directory)
        monkeypatch.setattr(metadata, "version", version)
        monkeypatch.setattr("subprocess.run", call)
        monkeypatch.setattr("site.addsitedir", lambda directory: None)
        code = code_after(notebook, "Install")
        exec(compile(code, "colab.ipynb", "exec"), {"REPOSITORY": repository})
        return calls[0] if calls else None

    return run


@pytest.fixture
def colab():
    """Versions of packages on Colab."""
    return {
        "jax": "0.11.1",
        "jaxlib": "0.11.1",
        "numpy": "2.4.6",
        "tensorflow": "2.21.0",
        "optax": "0.2.8",
    }


class TestInstall:
    def test_a_checkout_is_installed_and_versions_are_held(self, install, colab):
        package, constraints = install(colab, directory=ROOT / "experiments")
        assert package == ["-e", ".[train]"]
        assert Path.cwd() == ROOT
        assert constraints == [
            "jax==0.11.1",
            "jaxlib==0.11.1",
            "numpy==2.4.6",
            "tensorflow==2.21.0",
        ]

    def test_tensorflow_is_installed_if_it_is_missing(self, install, colab):
        del colab["tensorflow"]
        package, constraints = install(colab, directory=ROOT)
        assert package == ["-e", ".[train,prepare]"]
        assert len(constraints) == 3

    @pytest.mark.parametrize(
        ("repository", "package"),
        [
            ("", "vqvae_jax[train]"),
            ("https://host/a.git", "vqvae_jax[train] @ git+https://host/a.git"),
        ],
    )
    def test_outside_of_a_checkout(self, install, colab, tmp_path, repository, package):
        found, _ = install(colab, directory=tmp_path, repository=repository)
        assert found == [package]

    def test_an_installed_package_is_kept(self, install, colab, capsys):
        versions = colab | {"vqvae_jax": "0.2.0"}
        assert install(versions, directory=ROOT) is None
        assert capsys.readouterr().out == "vqvae_jax 0.2.0\n"

    def test_a_failure_of_pip_ends_the_notebook(self, install, colab):
        with pytest.raises(SystemExit, match=r"otherwise the installed ..jax"):
            install(colab, directory=ROOT, returncode=1)

    def test_its_extras_have_all_imports(self, notebook):
        assert {"train", "prepare"} <= EXTRAS.keys()
        listed = [*PROJECT["project"]["dependencies"], *EXTRAS["train"]]
        names = " ".join(listed).lower()
        modules = set()
        for cell in notebook.cells:
            if cell.cell_type == "code":
                for node in ast.walk(ast.parse(cell.source)):
                    if isinstance(node, ast.ImportFrom):
                        modules.add(node.module.partition(".")[0])
                    elif isinstance(node, ast.Import):
                        modules |= {each.name.partition(".")[0] for each in node.names}
        modules -= {*sys.stdlib_module_names, "google", "vqvae_jax"}
        distributions = metadata.packages_distributions()
        assert modules
        for module in modules:
            assert distributions[module][0].lower() in names


class TestCommitted:
    def test_it_has_the_outputs_of_all_cells(self, notebook):
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
        outputs = [output for cell in cells for output in cell.outputs]
        assert not [o for o in outputs if o.output_type == "error"]
        assert not [o for o in outputs if o.get("name") == "stderr"]
        assert sum("image/png" in o.get("data", {}) for o in outputs) == 4

    def test_it_is_small_and_has_no_path_of_the_machine(self, notebook):
        text = PATH.read_text(encoding="utf-8")
        assert len(text) < 1_000_000
        for path in ("/home/", "/root/", "/tmp/", "site-packages", str(ROOT)):
            assert path not in text
        assert set(notebook.metadata) <= {
            "accelerator",
            "colab",
            "kernelspec",
            "language_info",
        }
        keys = {key for cell in notebook.cells for key in cell.metadata}
        assert keys == {"tags", "cellView"}


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook, digits_dir, tiny_changes, tmp_path):
    client = pytest.importorskip("nbclient").NotebookClient
    changes = tiny_changes | {"data.data_dir": digits_dir}
    small = f"WORKDIR = {str(tmp_path / 'run')!r}\nCHANGES = {changes!r}"
    (index,) = [
        i for i, c in enumerate(notebook.cells) if TAG in c.metadata.get("tags", ())
    ]
    notebook.cells.insert(index + 1, nbformat.v4.new_code_cell(small))
    resources = {"metadata": {"path": str(ROOT / "experiments")}}
    client(notebook, timeout=600, resources=resources).execute()
    outputs = [o for c in notebook.cells for o in c.get("outputs", ())]
    assert not [o["text"] for o in outputs if o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 4
    assert (tmp_path / "run" / "report.html").exists()
