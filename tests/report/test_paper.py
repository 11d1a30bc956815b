"""The comparison of a run with the paper: results and differing settings."""

import pytest

from vqvae_jax.report.paper import REPORTED, paper_section

# Experiments that are skipped where their task is not installed.
TASKS = {"maze": "hierarchy", "speech": "speech", "vctk": "speech"}
CIFAR = {"test_bits_per_dim_uniform_prior": 5.5, "test_psnr_db": 20.0}


@pytest.fixture
def config_of(make_config):
    """(variant, changes) -> the config of an experiment with keys changed."""

    def make(variant, changes):
        task = TASKS.get(variant.partition(":")[0])
        if task is not None:
            pytest.importorskip(f"vqvae_jax.tasks.{task}")
        return make_config(variant, changes)

    return make


def table_of(config, results):
    (section,) = paper_section(config, results)
    return section.text, section.table


def test_paper_settings_have_no_differences(config_of):
    text, table = table_of(config_of("cifar", {}), CIFAR)
    assert table == [
        ("", "this run", "paper", "section"),
        ("Test bits/dim, uniform prior", "5.5", "4.67", "4.1"),
    ]
    assert text.endswith("Settings that differ from the paper's: none.")


def test_differing_settings_are_listed(config_of):
    changes = {"model.encoder.channels": 64, "training.steps": 2000}
    text, _ = table_of(config_of("cifar", changes), CIFAR)
    assert text.endswith(
        "Settings that differ from the paper's: model.encoder.channels is 64 "
        "(paper: 256); training.steps is 2,000 (paper: 250,000)."
    )


@pytest.mark.parametrize(
    ("variant", "result", "value"),
    [
        ("cifar:vae", "test_bits_per_dim", "4.51"),
        ("cifar:vimco", "test_bits_per_dim", "5.14"),
        ("imagenet", "compression_ratio", "42.6×"),
        ("maze:global", "global_bits_per_frame", "27"),
        ("vctk:phonemes", "phoneme_accuracy", "49.3%"),
        ("vctk:phonemes", "phoneme_chance_accuracy", "7.2%"),
    ],
)
def test_every_reported_result_is_matched(config_of, variant, result, value):
    text, (_, row) = table_of(config_of(variant, {}), {result: 0.5})
    assert row[2] == value
    if not variant.startswith("maze"):
        assert text.endswith("from the paper's: none.")


def test_each_difference_is_listed_once(config_of):
    results = {"phoneme_accuracy": 0.3, "phoneme_chance_accuracy": 0.1}
    text, table = table_of(config_of("speech:phonemes_small", {}), results)
    assert len(table) == 3
    assert text.count("data.name is speech/small (paper: vctk)") == 1


def test_other_data_sets_and_results_have_no_comparison(config_of):
    results = {reported.result: 1.0 for reported in REPORTED}
    assert paper_section(config_of("digits", {}), results) == []
    assert paper_section(config_of("cifar", {}), {"test_psnr_db": 20.0}) == []


@pytest.mark.parametrize("variant", ["cifar", "cifar:vae", "cifar:vimco"])
def test_folder_is_not_the_data_set_named_in_its_config(config_of, variant):
    config = config_of(variant, {"data.source": "folder", "data.data_dir": "photos"})
    assert config["data"]["name"] == "cifar10"
    results = {reported.result: 1.0 for reported in REPORTED}
    assert paper_section(config, results) == []


@pytest.mark.parametrize(
    ("variant", "result", "name"),
    [
        ("imagenet", "compression_ratio", "imagenet2012"),
        ("vctk:phonemes", "phoneme_accuracy", "vctk"),
    ],
)
def test_folder_is_listed_as_a_difference_if_any_data_set_matches(
    config_of, variant, result, name
):
    config = config_of(variant, {"data.source": "folder", "data.data_dir": "data"})
    text, _ = table_of(config, {result: 0.5})
    assert f"data.name is a folder (paper: {name})" in text
