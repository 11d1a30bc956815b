"""The files of experiments/: every variant is a valid config."""

import importlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from vqvae_jax.cli import train
from vqvae_jax.experiment import Experiment, default_config
from vqvae_jax.options import flatten

NAMES = sorted(
    path.stem
    for path in (Path(__file__).parents[1] / "experiments").glob("[!_]*.py")
    if path.stem != "base"
)


def load(name: str):
    """Import an experiment file, or `base`."""
    train.import_experiments()
    return importlib.import_module(f"vqvae_jax.experiments.{name}")


def runs(name: str) -> Iterator[tuple[str, dict]]:
    """Yield the config of each run, with a folder where the user gives one."""
    module = load(name)
    for variant in module.VARIANTS:
        config = module.get_config(variant)
        # A suite has one config per system, or one that it changes.
        systems = config.get("systems", {})
        found = {f"{variant}:{kind}": each for kind, each in systems.items()}
        if "base" in config:
            found = {f"{variant}:base": config.base}
        for label, each in (found or {variant: config}).items():
            if each.data.source == "folder":
                each.data.data_dir = each.data.data_dir or "images"
            yield label, each.to_dict()


def changes(config) -> Iterator:
    """Yield the `Variant`s of an entry of VARIANTS."""
    if isinstance(config, load("base").Variant):
        yield config
    elif isinstance(config, Mapping):
        for value in config.values():
            yield from changes(value)


def test_all_experiments_are_found():
    assert {"cifar", "comparison", "digits", "maze", "robustness", "speech"} < {*NAMES}
    assert sum(len(load(name).VARIANTS) for name in NAMES) == 48


@pytest.mark.parametrize("name", NAMES)
class TestEach:
    def test_every_variant_is_valid(self, name):
        module = load(name)
        assert module.get_config() == module.get_config("")
        assert isinstance(module.get_config(), ConfigDict)
        for _, plain in runs(name):
            experiment = Experiment.from_config(plain)
            # config.json holds the same.
            assert Experiment.from_config(json.loads(json.dumps(plain))) == experiment

    def test_every_key_can_be_set(self, name):
        """The config is locked: a missing key could not be set on the command line."""
        for label, plain in runs(name):
            second = Experiment.from_config(plain).second_stage
            keys = flatten(default_config(plain["model"]["kind"], second)).keys()
            assert flatten(plain).keys() == keys, label

    def test_every_change_differs_from_the_default(self, name):
        """In one variant at least: others may restore the default."""
        is_needed: dict[str, bool] = {}
        for variant in changes(load(name).VARIANTS):
            defaults = default_config(variant.kind, variant.second_stage)
            keys, values = ConfigDict(defaults), dict(variant.changes)
            for key, value in values.items():
                differs = value != _get(keys, key)
                is_needed[key] = is_needed.get(key, False) or differs
        # This file starts from the changes of experiments/speech.py.
        is_needed |= {"data.name": True} if name == "an4" else {}
        assert not [key for key, needed in is_needed.items() if not needed]

    def test_sizes_fit_together(self, name):
        """Grids, steps and batches are consistent."""
        for label, plain in runs(name):
            experiment = Experiment.from_config(plain)
            model, data = experiment.model, experiment.data
            samples = experiment.samples
            assert samples.num_samples % samples.batch_size == 0, label
            steps = experiment.training
            assert steps.log_every <= steps.checkpoint_every <= steps.steps
            if experiment.kind == "speech":
                # Crops of whole codes, and enough of them to initialise a codebook.
                assert data.crop_samples % model.downsampling == 0
                codes = data.crop_samples // model.downsampling
                first = steps.batch_size * steps.init_batches * codes
                assert first >= model.num_codes / 2
            if experiment.kind != "vqvae":
                continue
            side = data.image_size / 2**model.encoder.num_downsamples
            codebooks = plain["model"]["quantizer"]["num_codebooks"]
            assert model.grid == (side, side, codebooks)
            metadata = {
                "grid": model.grid,
                "num_codes": model.num_codes,
                "class_names": (),
                "action_names": ("left", "right"),
            }
            for second in experiment.second_models(metadata).values():
                assert math.prod(second.grid) == model.num_latents
            for training in (experiment.training, experiment.second_training):
                assert training.log_every <= training.checkpoint_every <= training.steps
                assert training.warmup_steps < training.steps / 2

    def test_paper_sizes_fit_eight_devices(self, name):
        """The small variants fit a CPU instead, some of them its memory."""
        for label, plain in runs(name):
            if "small" in label:
                continue
            for section in ("training", "prior_training", "evaluation"):
                options = plain.get(section, {"batch_size": 8})
                at_once = options["batch_size"] // options.get("accumulate", 1)
                assert at_once % 8 == 0, f"{label}: {section}"

    def test_memory_can_be_saved(self, name):
        """Every training section has `accumulate`, every large network `remat`."""
        for _, plain in runs(name):
            kind = plain["model"]["kind"]
            networks = {
                "vqvae": ("model.encoder", "model.decoder"),
                "vae": ("model.encoder", "model.decoder"),
                "vimco": ("model.encoder", "model.decoder"),
                "pixelcnn": ("model.network",),
                "speech": ("model.decoder",),
                "prior": ("prior.network",),
                "hierarchy": ("hierarchy.pixelcnn",),
                "video": ("video.pixelcnn",),
                "sequence_prior": ("sequence_prior.network",),
                # A GAN has few layers.
                "gan": (),
            }
            keys = flatten(plain)
            for section in plain:
                if section.endswith("training"):
                    assert f"{section}.accumulate" in keys
                for network in networks.get(section, ()):
                    assert f"{network}.remat" in keys
            assert all(f"{network}.remat" in keys for network in networks[kind])

    def test_an_unknown_variant_is_refused(self, name):
        module = load(name)
        with pytest.raises(ValueError, match=r"has no variant 'no_such_one'") as error:
            module.get_config("no_such_one")
        names = ", ".join(filter(None, module.VARIANTS))
        tail = f"; there are {names}" if names else ""
        message = f"experiments/{name}.py has no variant 'no_such_one'{tail}"
        assert str(error.value) == message

    def test_the_docstring_lists_the_variants(self, name):
        module = load(name)
        first, *rest = module.__doc__.splitlines()
        assert first.endswith(".")
        listed = "\n".join(rest)
        if "Variants: those of experiments/speech.py" in listed:
            listed = load("speech").__doc__
        assert [v for v in filter(None, module.VARIANTS) if v not in listed] == []


def _get(config: ConfigDict, key: str):
    for part in key.split("."):
        config = config[part]
    return config


class TestBase:
    @pytest.fixture
    def base(self):
        return load("base")

    def test_a_variant_changes_defaults(self, base):
        changed = {"model.quantizer.num_codes": 7, "model.likelihood": "gaussian"}
        config = base.Variant("vqvae", "prior", changed).config().to_dict()
        expected = default_config("vqvae", "prior")
        expected["model"]["quantizer"]["num_codes"] = 7
        expected["model"]["likelihood"] = "gaussian"
        assert config == expected
        assert base.Variant("vae").config().to_dict() == default_config("vae")

    def test_tuples_stay_tuples(self, base):
        config = base.Variant("vae").config()
        assert config.model.log_variance_range == (-12.0, 6.0)
        assert isinstance(config.to_dict()["model"]["log_variance_range"], tuple)

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            (
                "model.quantizer.num_code",
                "model.quantizer.num_code is not a key of the config, did you mean "
                "model.quantizer.num_codes?",
            ),
            ("zzz", "zzz is not a key of the config"),
            # A section is not a key.
            ("data", "data is not a key of the config, did you mean data.name?"),
        ],
    )
    def test_an_unknown_key_is_named(self, base, key, message):
        with pytest.raises(ValueError, match="is not a key") as error:
            base.Variant("vqvae", "prior", {key: 3}).config()
        assert str(error.value) == message

    def test_a_wrong_type_is_refused(self, base):
        with pytest.raises(TypeError, match="steps"):
            base.Variant("vae", changes={"training.steps": 1.5}).config()

    def test_sections_are_independent(self, base):
        """A key of one section does not change the same key of another."""
        variants = {"": base.Variant("vqvae", "prior")}
        config = base.variants("digits.py", variants)()
        config.training.steps, config.model.encoder.channels = 1, 2
        assert config.prior_training.steps == 250_000
        assert config.model.decoder.channels == 256
        assert base.variants("digits.py", variants)().training.steps == 250_000

    def test_changes_of_several_sections(self, base):
        assert base.change("a", "b.c", x=1, y=2) == {
            "a.x": 1,
            "a.y": 2,
            "b.c.x": 1,
            "b.c.y": 2,
        }
        assert base.autoencoder(channels=3) == {
            "model.encoder.channels": 3,
            "model.decoder.channels": 3,
        }


def test_robustness_varies_options_of_its_model():
    config = load("robustness").get_config().to_dict()
    model = flatten(config["base"]["model"])
    varied = flatten(config["vary"])
    assert varied.keys() <= model.keys()
    # Each option's values include the base's, as the reference.
    assert all(model[name] in values for name, values in varied.items())


def test_comparison_has_one_budget():
    for variant in load("comparison").VARIANTS:
        systems = load("comparison").get_config(variant).to_dict()["systems"]
        assert {*systems} == {"gan", "vae", "pixelcnn", "vqvae"}
        budgets = {
            sum(
                section["steps"] * section["batch_size"]
                for name, section in system.items()
                if name.endswith("training")
            )
            for system in systems.values()
        }
        assert len(budgets) == 1
        assert len({json.dumps(system["data"]) for system in systems.values()}) == 1
