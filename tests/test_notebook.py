"""The Colab notebook: what it installs, and all of it from top to bottom in small."""

import sys
from importlib import metadata
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parents[1]
PATH = ROOT / "experiments" / "colab.ipynb"
TAG = "parameters"


@pytest.fixture
def notebook():
    return nbformat.read(PATH, as_version=4)


def code_after(notebook, heading: str) -> str:
    """The code cell below a heading."""
    cells = notebook.cells
    (place,) = [i for i, each in enumerate(cells) if f"## {heading}\n" in each.source]
    return cells[place + 1].source


@pytest.fixture
def install(notebook, monkeypatch, tmp_path):
    """Run the install cell where these versions are there; return pip's arguments.

    The held versions come last, as one string.
    """

    def run(versions: dict[str, str]) -> list[str]:
        calls = []

        def version(name):
            if name not in versions:
                raise metadata.PackageNotFoundError(name)
            return versions[name]

        def call(command, *, check):
            held = Path(command[command.index("-c") + 1]).read_text()
            calls.append([*command[command.index("-c") + 2 :], held])

        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(metadata, "version", version)
        monkeypatch.setattr("subprocess.run", call)
        monkeypatch.setattr("sys.path", list(sys.path))
        code = code_after(notebook, "Install")
        exec(compile(code, "colab.ipynb", "exec"), {"REPOSITORY": ""})
        return calls[0] if calls else []

    return run


COLAB = {
    "jax": "0.11.1",
    "jaxlib": "0.11.1",
    "numpy": "2.4.6",
    "tensorflow": "2.21.0",
    "flax": "0.11.2",
    "optax": "0.2.8",
}


class TestInstall:
    def test_only_what_is_missing_and_beside_what_is_held(self, install):
        *wanted, held = install(COLAB)
        assert held.split() == [
            "jax==0.11.1",
            "jaxlib==0.11.1",
            "numpy==2.4.6",
            "tensorflow==2.21.0",
        ]
        # Missing, and too old.
        assert {"grain>=0.2.18", "dm-pix", "flax>=0.12"} <= set(wanted)
        names = {each.split(">")[0] for each in wanted}
        assert not names & {"jax", "numpy", "optax", "tensorflow", "tensorflow-cpu"}
        assert not names & {"pytest", "ruff", "dm-haiku", "playwright", "vizdoom"}

    def test_a_jax_that_is_too_old_is_told_and_left_alone(self, install):
        with pytest.raises(SystemExit, match=r"too old: vqvae_jax needs jax>=0\.10"):
            install(COLAB | {"jax": "0.7.2"})

    def test_nothing_where_all_is_there(self, install, capsys):
        class Everything(dict):
            def __contains__(self, name):
                return True

            def __missing__(self, name):
                return "1000"

        assert install(Everything()) == []
        assert "nothing was missing" in capsys.readouterr().out

    def test_what_is_not_needed_is_in_the_list(self, install, notebook):
        namespace = {"REPOSITORY": ""}
        code = code_after(notebook, "Install").split("def version")[0]
        exec(compile(code, "colab.ipynb", "exec"), namespace)
        listed = (ROOT / "requirements.txt").read_text(encoding="utf-8")
        names = {
            line.split("#")[0].split(";")[0].strip() for line in listed.split("\n")
        }
        assert namespace["NOT_NEEDED"] <= names


class TestCommitted:
    def test_it_holds_a_run_of_all_cells(self, notebook):
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
        outputs = [output for cell in cells for output in cell.outputs]
        assert not [o for o in outputs if o.output_type == "error"]
        assert not [o for o in outputs if o.get("name") == "stderr"]
        assert sum("image/png" in o.get("data", {}) for o in outputs) == 4

    def test_it_is_small_and_says_nothing_of_the_machine(self, notebook):
        text = PATH.read_text(encoding="utf-8")
        assert len(text) < 1_000_000
        for place in ("/home/", "/root/", "/tmp/", "site-packages", str(ROOT)):
            assert place not in text
        assert set(notebook.metadata) <= {
            "accelerator",
            "colab",
            "kernelspec",
            "language_info",
        }
        assert {key for cell in notebook.cells for key in cell.metadata} == {"tags"}


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook, digits_dir, tiny_changes, tmp_path):
    client = pytest.importorskip("nbclient").NotebookClient
    changes = tiny_changes | {"data.data_dir": digits_dir}
    small = f"WORKDIR = {str(tmp_path / 'run')!r}\nCHANGES = {changes!r}"
    (place,) = [
        i for i, c in enumerate(notebook.cells) if TAG in c.metadata.get("tags", ())
    ]
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(small))
    resources = {"metadata": {"path": str(ROOT / "experiments")}}
    client(notebook, timeout=600, resources=resources).execute()
    outputs = [o for c in notebook.cells for o in c.get("outputs", ())]
    assert not [o["text"] for o in outputs if o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 4
    assert (tmp_path / "run" / "report.html").exists()
