"""Names of runs."""

import pytest

from vqvae_jax.training.run_name import run_name


@pytest.mark.parametrize(
    ("workdir", "name"),
    [
        ("runs/cifar", "cifar"),
        ("runs/cifar/", "cifar"),
        ("runs/robustness/beta=0.5/1", "beta=0.5/1"),
        ("runs/comparison/vqvae/12", "vqvae/12"),
        ("/3", "3"),
    ],
)
def test_a_number_alone_is_no_name(workdir, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_name(workdir) == name


def test_a_relative_path_has_the_name_of_where_it_leads(tmp_path, monkeypatch):
    (tmp_path / "gan" / "0").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "gan" / "0")
    assert run_name(".") == "gan/0"
    assert run_name("..") == "gan"
