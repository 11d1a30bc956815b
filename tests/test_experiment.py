"""Whole configs: they build an experiment, and every error names its key."""

import copy

import pytest

from vqvae_jax import options
from vqvae_jax.experiment import Experiment, default_config, kind_of, with_kinds
from vqvae_jax.quantizers import FSQ, LFQ, VQ, Residual, SimVQ
from vqvae_jax.runtime.errors import UserError


@pytest.fixture
def config(make_config):
    return make_config("digits", {})


class TestOptionsWithoutEffect:
    @pytest.mark.parametrize("kind", ["gan", "vae", "vimco"])
    @pytest.mark.parametrize(
        ("name", "value"), [("temperature", 0.5), ("top_k", 3), ("top_p", 0.9)]
    )
    def test_draw_options_are_refused_without_logits(
        self, make_config, kind, name, value
    ):
        config = make_config(f"cifar:{kind}", {f"samples.{name}": value})
        with pytest.raises(UserError, match=rf"^samples\.{name}={value} does nothing"):
            Experiment.from_config(config)

    def test_label_dropout_is_refused_without_labels(self, make_config):
        config = make_config("cifar:pixelcnn", {})
        config["samples"] |= {"top_k": 3, "top_p": 0.9}
        Experiment.from_config(config)
        config["model"]["label_dropout"] = 0.1
        with pytest.raises(UserError, match=r"^model\.label_dropout=0\.1 does nothing"):
            Experiment.from_config(config)

    def test_guidance_is_refused_without_label_dropout(self, config):
        config["samples"]["guidance"] = 2.0
        with pytest.raises(UserError, match=r"^samples\.guidance=2\.0 needs prior\."):
            Experiment.from_config(config)
        config["prior"]["label_dropout"] = 0.1
        assert Experiment.from_config(config).samples.guidance == 2.0

    @pytest.mark.parametrize(
        "variant",
        ["cifar:vae", "speech:small", "speech:unconditional_small", "maze:global"],
    )
    def test_only_samples_of_a_prior_are_classified(self, make_config, variant):
        config = make_config(variant, {"evaluation.classify_samples": True})
        with pytest.raises(
            UserError, match=r"^evaluation\.classify_samples=True needs"
        ):
            Experiment.from_config(config)


def test_sections_reach_their_dataclasses(config):
    experiment = Experiment.from_config(config)
    size, channels = config["data"]["image_size"], config["data"]["channels"]
    model = experiment.model
    assert model.image_shape == (size, size, channels)
    assert model.num_codes == config["model"]["quantizer"]["num_codes"]
    assert model.encoder.channels == config["model"]["encoder"]["channels"]
    assert experiment.seed == config["seed"]
    assert experiment.training.steps == config["training"]["steps"]
    assert experiment.second_training.steps == config["prior_training"]["steps"]
    metadata = {"grid": [2, 3, 1], "num_codes": 7, "class_names": ["a", "b"]}
    prior = experiment.second_models(metadata)["prior"]
    assert (prior.grid, prior.num_codes, prior.num_classes) == ((2, 3, 1), 7, 2)
    assert prior.network.layers == config["prior"]["network"]["layers"]


ERRORS = [
    # key, value, part of the message after the key
    ("seed", -1, "must be"),
    ("seed", True, "must be"),
    ("seed", "0", "must be"),
    ("data", None, "must be a section of options, got None"),
    ("data.channels", 2, "must be one of 1, 3, got 2"),
    ("data.image_size", 8.0, "must be of type int"),
    ("data.random_flip", 1, "must be of type bool"),
    ("data.colour", True, "is not an option"),
    ("model.kind", "vqgan", "must be one of vqvae, vae, "),
    ("model.encoder", 3, "must be a section of options, got 3"),
    ("model.encoder.num_downsamples", 4, "=4 "),
    ("model.decoder.num_downsamples", 2, "=2 must equal encoder.num_downsamples=1"),
    ("model.encoder.dtype", "float16", "must be one of float32, bfloat16, got"),
    ("model.decoder.out_channels", 3, "is not an option"),
    ("model.quantizer.kind", "vqq", "must be one of vq, residual, "),
    ("model.quantizer.num_codes", 0, "must be >= 1, got 0"),
    ("model.quantizer.num_codes", True, "must be of type int"),
    ("model.quantizer.beta", "0.25", "must be of type float"),
    ("model.quantizer.num_code", 3, "is not an option, did you mean num_codes?; "),
    ("model.num_codes", 3, "is not an option, did you mean quantizer.num_codes?; "),
    (
        "model.channels",
        3,
        "is not an option, did you mean encoder.channels or decoder.channels?; there "
        "are decoder, encoder, likelihood, quantizer",
    ),
    ("model.likelihood", "cosine", "'cosine' does not exist"),
    ("model.image_shape", (8, 8, 1), "is not an option"),
    ("training.learning_rate", 0.0, "must be > 0"),
    ("training.schedule", 1, "must be one of constant, cosine, got 1"),
    ("data.channels", True, "must be one of 1, 3, got True"),
    ("data.channels", 3.0, "must be one of 1, 3, got 3.0"),
    ("training.schedule", "linear", "must be one of constant, cosine, got 'linear'"),
    ("prior_training.steps", 0, "must be >= 1"),
    ("prior_training.step", 5, "is not an option, did you mean steps?; there are "),
    ("prior.network.kernel_size", 4, "must be odd"),
    ("prior.network.num_codes", 4, "is not an option"),
    ("prior.grid", (2, 2, 1), "is not an option"),
    ("samples.temperature", 0.0, "must be > 0"),
    ("evaluation.batch_size", 0, "must be >= 1"),
    ("evaluation.train_grids", -1, "must be >= 0"),
    ("sample", {}, "is not a section"),
]


@pytest.mark.parametrize(("key", "value", "message"), ERRORS)
def test_an_error_names_its_key(config, key, value, message):
    assert_refused(config, key, value, message)


def assert_refused(config, key, value, message):
    """Assert that setting a key raises an error that starts with it."""
    config = copy.deepcopy(config)
    *sections, name = key.split(".")
    section = config
    for each in sections:
        section = section[each]
    section[name] = value
    with pytest.raises(UserError) as error:
        Experiment.from_config(config)
    assert str(error.value).startswith(key)
    assert message in str(error.value).removeprefix(key)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "key", ["seed", "data", "prior", "prior_training", "evaluation"]
)
def test_a_missing_section_is_named(config, key):
    del config[key]
    with pytest.raises(UserError, match=f"^{key} is missing from the config"):
        Experiment.from_config(config)


def test_a_missing_kind_is_named(config):
    del config["model"]["kind"]
    with pytest.raises(UserError, match=r"^model\.kind must be one of .*, got None"):
        Experiment.from_config(config)


def test_a_missing_key_has_its_default(config):
    """As in configs of versions before the key existed."""
    expected = Experiment.from_config(config)
    del config["data"]["source"], config["model"]["encoder"]["dtype"]
    del config["model"]["decoder"]["remat"], config["model"]["quantizer"]["beta"]
    del config["model"]["quantizer"]["kind"], config["training"]["keep"]
    assert Experiment.from_config(config) == expected
    del config["training"]["steps"]
    steps = default_config("vqvae", "prior")["training"]["steps"]
    assert Experiment.from_config(config).training.steps == steps


class TestWithKinds:
    """Sections of other kinds than an experiment's."""

    def test_keys_are_those_of_the_kind(self, config):
        config["model"]["quantizer"] |= {"num_codes": 16, "dim": 6}
        changed = with_kinds(config, {"model.quantizer.kind": "fsq"})
        quantizer = {"kind": "fsq", "levels": (8, 6, 5), "dim": 6, "codes": "joint"}
        assert changed["model"]["quantizer"] == quantizer
        assert Experiment.from_config(changed).model.quantizer == FSQ(dim=6)
        # The config itself is unchanged.
        assert config["model"]["quantizer"]["kind"] == "vq"

    def test_other_keys_have_the_defaults_of_the_kind(self, config):
        """Not those of the kind before: both have weights of entropy terms."""
        config["model"]["quantizer"] = (
            {"kind": "vq"} | options.defaults(VQ) | {"dim": 6}
        )
        changed = with_kinds(config, {"model.quantizer.kind": "lfq"})
        assert Experiment.from_config(changed).model.quantizer == LFQ(dim=6)

    def test_a_kind_inside_of_another_one(self, config):
        kinds = {
            "model.quantizer.quantizer.kind": "simvq",
            "model.quantizer.kind": "residual",
        }
        model = Experiment.from_config(with_kinds(config, kinds)).model
        assert model.quantizer == Residual(quantizer=SimVQ())

    def test_configs_inside_of_a_suite(self, config):
        kinds = {"base.model.quantizer.kind": "lfq"}
        found = with_kinds({"base": config, "seeds": 3}, kinds)
        assert found["base"] == with_kinds(config, {"model.quantizer.kind": "lfq"})

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            ("modl.quantizer.kind", r"the config has no section 'modl'"),
            ("training.kind.kind", r"the config has no section 'kind'"),
            ("training.kind", r"^training\.kind is not an option"),
            ("prior.kind", r"^prior\.kind is not an option"),
            ("kind", r"^kind is not an option"),
            ("model.kind", r"^model\.kind cannot be changed"),
            ("prior.network.kind", r"network\.kind is not an option"),
        ],
    )
    def test_wrong_keys(self, key, message, config):
        with pytest.raises(UserError, match=message):
            with_kinds(config, {key: "fsq"})


def test_defaults_are_valid():
    for kind, second in (
        ("vqvae", "prior"),
        ("vqvae", "video"),
        ("vae", None),
        ("pixelcnn", None),
        ("speech", "sequence_prior"),
    ):
        config = default_config(kind, second)
        config["data"]["name"] = "some_set"
        experiment = Experiment.from_config(config)
        assert (experiment.kind, experiment.second_stage) == (kind, second)
        assert kind_of(config) == kind
