"""A run's figures beside the paper's, and what was set differently."""

import pytest

from vqvae_jax.report.paper import REPORTED, paper_section

CIFAR = {"test_bits_per_dim_uniform_prior": 5.5, "test_psnr_db": 20.0}


def table_of(config, results):
    (section,) = paper_section(config, results)
    return section.text, section.table


def test_the_papers_own_settings_differ_in_nothing(make_config):
    text, table = table_of(make_config("cifar", {}), CIFAR)
    assert table == [
        ("", "this run", "paper", "section"),
        ("Test bits/dim, uniform prior", "5.5", "4.67", "4.1"),
    ]
    assert text.endswith("Set differently here: nothing that the paper tells.")


def test_what_differs_is_told(make_config):
    changes = {"model.units": 64, "training.steps": 2000}
    text, _ = table_of(make_config("cifar", changes), CIFAR)
    assert text.endswith(
        "Set differently here: model.units is 64, in the paper 256; training.steps is "
        "2,000, in the paper 250,000."
    )


@pytest.mark.parametrize(
    ("variant", "result", "value"),
    [
        ("cifar:vae", "test_bits_per_dim", "4.51"),
        ("cifar:vimco", "test_bits_per_dim", "5.14"),
        ("imagenet", "compression_ratio", "42.6"),
        ("maze:global", "global_bits_per_frame", "27"),
        ("vctk:phonemes", "phoneme_accuracy", "49.3%"),
        ("vctk:phonemes", "phoneme_chance_accuracy", "7.2%"),
    ],
)
def test_every_figure_of_the_paper_is_found(make_config, variant, result, value):
    text, (_, row) = table_of(make_config(variant, {}), {result: 0.5})
    assert row[2] == value
    if not variant.startswith("maze"):
        assert text.endswith("nothing that the paper tells.")


def test_each_difference_is_told_once(make_config):
    results = {"phoneme_accuracy": 0.3, "phoneme_chance_accuracy": 0.1}
    text, table = table_of(make_config("speech:phonemes_small", {}), results)
    assert len(table) == 3
    assert text.count("data.name is speech/small, in the paper vctk") == 1


def test_other_sets_and_other_figures_have_nothing_to_do_with_it(make_config):
    results = {reported.result: 1.0 for reported in REPORTED}
    assert paper_section(make_config("digits", {}), results) == []
    assert paper_section(make_config("cifar", {}), {"test_psnr_db": 20.0}) == []


@pytest.mark.parametrize("variant", ["cifar", "cifar:vae", "cifar:vimco"])
def test_a_folder_is_not_the_set_whose_name_its_config_has(make_config, variant):
    config = make_config(variant, {"data.source": "folder", "data.data_dir": "photos"})
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
def test_where_any_data_will_do_a_folder_is_a_difference(
    make_config, variant, result, name
):
    config = make_config(variant, {"data.source": "folder", "data.data_dir": "data"})
    text, _ = table_of(config, {result: 0.5})
    assert f"data.name is a folder, in the paper {name}" in text
