"""Whole configs: every experiment is valid, every mistake is told with its key."""

import ast
import contextlib
import copy
import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest

from vqvae_jax.experiment import Experiment
from vqvae_jax.options import flatten
from vqvae_jax.runtime.errors import UserError

EXPERIMENTS = sorted(
    (Path(__file__).parent.parent / "experiments").glob("[!_]*.py"),
    key=lambda path: path.name,
)


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def strings(path: Path):
    """All short string literals of a file, the names of its variants among them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return sorted(text for text in texts if text.isidentifier())


def variants(path: Path) -> dict[str, dict]:
    """Each variant of an experiment; the folder that a user gives is made up."""
    configs = {"": load(path).get_config()}
    for name in strings(path):
        with contextlib.suppress(ValueError):
            configs[name] = load(path).get_config(name)
    for name, config in list(configs.items()):
        # A suite is the experiments of its systems, or changes of one.
        if "systems" in config:
            del configs[name]
            configs |= {f"{name}:{kind}": c for kind, c in config.systems.items()}
        elif "base" in config:
            configs[name] = config.base
    for config in configs.values():
        if config.data.source == "folder":
            config.data.data_dir = config.data.data_dir or "images"
    return {name: config.to_dict() for name, config in configs.items()}


# Those of any experiment with these sections and this kind of model: a ConfigDict that
# lacks one is locked and cannot be given it.
KEYS: dict[tuple, set[str]] = {}


def like(plain: dict) -> tuple:
    return plain["model"]["kind"], *sorted(plain)


for path in EXPERIMENTS:
    for plain in variants(path).values():
        KEYS.setdefault(like(plain), set()).update(flatten(plain))


@pytest.fixture
def config():
    path = next(path for path in EXPERIMENTS if path.stem == "digits")
    return load(path).get_config().to_dict()


class TestExperiments:
    def test_there_are_some(self):
        assert EXPERIMENTS

    @pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
    def test_default_and_variants_are_valid(self, path):
        get_config = load(path).get_config
        assert get_config() == get_config("")
        for plain in variants(path).values():
            experiment = Experiment.from_config(plain)
            # `config.json` says the same.
            assert Experiment.from_config(json.loads(json.dumps(plain))) == experiment

    @pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
    def test_sizes_fit_together(self, path):
        """Every key is there to be changed; grids, steps and batches are consistent."""
        for plain in variants(path).values():
            assert flatten(plain).keys() == KEYS[like(plain)]
            experiment = Experiment.from_config(plain)
            model, data = experiment.model, experiment.data
            samples = experiment.samples
            assert samples.num_samples % samples.batch_size == 0
            steps = experiment.training
            assert steps.log_every <= steps.checkpoint_every <= steps.steps
            if experiment.kind == "speech":
                # Crops of whole codes, some of which a batch has to start from.
                assert data.crop_samples % model.downsampling == 0
                codes = data.crop_samples // model.downsampling
                first = steps.batch_size * steps.init_batches * codes
                assert first >= model.num_codes / 2
            if experiment.kind != "vqvae":
                continue
            assert model.grid == (
                data.image_size / 2**model.stages,
                data.image_size / 2**model.stages,
                plain["model"]["num_codebooks"],
            )
            facts = {
                "grid": model.grid,
                "num_codes": model.num_codes,
                "class_names": (),
                "action_names": ("left", "right"),
            }
            for second in experiment.make_second(facts).values():
                assert math.prod(second.grid) == model.num_latents
            for training in (experiment.training, experiment.second_training):
                assert training.log_every <= training.checkpoint_every <= training.steps
                assert training.warmup_steps < training.steps / 2

    @pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
    def test_paper_sizes_fit_eight_devices(self, path):
        """Those of a CPU are small, some of them for its memory."""
        for name, plain in variants(path).items():
            if "small" in name:
                continue
            for section in ("training", "prior_training", "evaluation"):
                options = plain.get(section, {"batch_size": 8})
                at_once = options["batch_size"] // options.get("accumulate", 1)
                assert at_once % 8 == 0, f"{name}: {section}"

    @pytest.mark.parametrize("kind", ["gan", "vae", "vimco"])
    @pytest.mark.parametrize(
        ("name", "value"), [("temperature", 0.5), ("top_k", 3), ("top_p", 0.9)]
    )
    def test_how_to_draw_is_refused_where_there_are_no_logits(self, kind, name, value):
        path = next(path for path in EXPERIMENTS if path.stem == "cifar")
        config = load(path).get_config(kind).to_dict()
        config["samples"][name] = value
        with pytest.raises(UserError, match=rf"^samples\.{name}={value} does nothing"):
            Experiment.from_config(config)

    def test_labels_are_not_withheld_from_who_gets_none(self):
        path = next(path for path in EXPERIMENTS if path.stem == "cifar")
        config = load(path).get_config("pixelcnn").to_dict()
        config["samples"] |= {"top_k": 3, "top_p": 0.9}
        Experiment.from_config(config)
        config["model"]["label_dropout"] = 0.1
        with pytest.raises(UserError, match=r"^model\.label_dropout=0\.1 does nothing"):
            Experiment.from_config(config)

    @pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
    def test_memory_can_be_saved(self, path):
        """Where `accumulate` or `remat` exists, a command line can set it."""
        for plain in variants(path).values():
            for name, section in plain.items():
                if name.endswith("training"):
                    assert "accumulate" in section
                # A GAN's layers are few.
                if name.endswith(("model", "prior")) and section.get("kind") != "gan":
                    assert "remat" in section

    @pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
    def test_other_variants_are_refused(self, path):
        with pytest.raises(ValueError, match="no_such_variant"):
            load(path).get_config("no_such_variant")


def test_sections_reach_their_dataclasses(config):
    experiment = Experiment.from_config(config)
    size, channels = config["data"]["image_size"], config["data"]["channels"]
    assert experiment.model.image_shape == (size, size, channels)
    assert experiment.model.num_codes == config["model"]["num_codes"]
    assert experiment.seed == config["seed"]
    assert experiment.training.steps == config["training"]["steps"]
    assert experiment.prior_training.steps == config["prior_training"]["steps"]
    facts = {"grid": [2, 3, 1], "num_codes": 7, "class_names": ["a", "b"]}
    prior = experiment.make_second(facts)["prior"]
    assert (prior.grid, prior.num_codes, prior.num_classes) == ((2, 3, 1), 7, 2)
    assert prior.layers == config["prior"]["layers"]


class TestSpeech:
    @pytest.fixture
    def config(self, make_config):
        return make_config("speech:unconditional_small", {})

    def test_a_model_knows_its_speakers_once_they_are_known(self, config):
        experiment = Experiment.from_config(config)
        assert experiment.data.crop_samples == config["data"]["crop_samples"]
        assert experiment.with_speakers(("a", "b")).model.num_speakers == 2
        named = Experiment.from_config(config, speaker_names=("a", "b"))
        assert experiment.with_speakers(("a", "b")) == named

    def test_the_prior_is_for_its_codes(self, config):
        experiment = Experiment.from_config(config)
        assert experiment.second == "sequence_prior"
        facts = {"num_codes": 7, "class_names": ["a", "b"]}
        prior = experiment.make_second(facts)["sequence_prior"]
        assert (prior.num_codes, prior.class_names) == (7, ("a", "b"))
        assert prior.latents == 320

    def test_utterances_are_padded_to_whole_seconds_of_whole_codes(self, config):
        config["model"]["downsampling"] = 640
        config["data"]["sample_rate"] = 22_050
        config["evaluation"]["batch_size"] = 2
        experiment = Experiment.from_config(config)

        class Short:
            lengths = np.array([3, 30_000])

            def __len__(self):
                return 2

            def __getitem__(self, index):
                number = np.int32(0)
                return {
                    "audio": np.zeros(self.lengths[index], np.int16),
                    "speaker": number,
                    "sentence": number,
                    "phones": np.zeros((0, 3), np.int32),
                }

        (batch,) = experiment.utterance_batches(Short(), phones=True)
        # 22 400 is the next multiple of 640 after a second.
        assert batch["audio"].shape == (2, 44_800)
        assert batch["phones"].shape == (2, 70)

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("data.image_size", 8, "is not an option"),
            ("data.crop_samples", 0, "is 0; expected"),
            ("model.image_shape", (8, 8, 1), "is not an option"),
            ("model.speaker_names", ("a",), "is not an option"),
            ("model.downsampling", 7, "must be a product of 2, 3 and 5"),
            ("sequence_prior.latents", 0, "must be at least 1"),
            ("prior", {}, "is not a section of a speech's config"),
        ],
    )
    def test_mistakes_name_their_key(self, config, key, value, message):
        test_mistakes_name_their_key(config, key, value, message)


MISTAKES = [
    # key, value, what the message says after the key
    ("seed", -1, "must be"),
    ("seed", True, "must be"),
    ("seed", "0", "must be"),
    ("data.channels", 2, "is 2"),
    ("data.image_size", 8.0, "must be of type int"),
    ("data.random_flip", 1, "must be of type bool"),
    ("data.colour", True, "is not an option"),
    ("model.stages", 4, ""),
    ("model.num_codes", 0, "must be at least 1"),
    ("model.num_codes", True, "must be of type int"),
    ("model.beta", "0.25", "must be of type float"),
    ("model.likelihood", "cosine", "'cosine' does not exist"),
    ("model.num_code", 3, "is not an option"),
    ("model.image_shape", (8, 8, 1), "is not an option"),
    ("training.learning_rate", 0.0, "must be above 0"),
    ("training.schedule", 1, "must be of type str"),
    ("prior_training.steps", 0, "must be at least 1"),
    ("prior.kernel_size", 4, "must be odd"),
    ("prior.grid", (2, 2, 1), "is not an option"),
    ("samples.temperature", 0.0, "must be above 0"),
    ("evaluation.batch_size", 0, "must be >= 1"),
    ("evaluation.train_grids", -1, "must not be negative"),
    ("sample", {}, "is not a section"),
]


@pytest.mark.parametrize(("key", "value", "message"), MISTAKES)
def test_mistakes_name_their_key(config, key, value, message):
    config = copy.deepcopy(config)
    *section, name = key.split(".")
    (config[section[0]] if section else config)[name] = value
    with pytest.raises(UserError) as error:
        Experiment.from_config(config)
    assert str(error.value).startswith(key)
    assert message in str(error.value)


@pytest.mark.parametrize("variant", ["cifar:vae", "speech:small", "maze:global"])
def test_only_samples_of_a_prior_are_classified(make_config, variant):
    config = make_config(variant, {"evaluation.classify_samples": True})
    with pytest.raises(UserError, match=r"^evaluation\.classify_samples=True needs"):
        Experiment.from_config(config)


@pytest.mark.parametrize("key", ["seed", "data", "prior", "evaluation"])
def test_missing_sections_are_told(config, key):
    del config[key]
    with pytest.raises(UserError, match=f"^{key} is missing"):
        Experiment.from_config(config)


@pytest.mark.parametrize("key", ["data.source", "training.steps"])
def test_missing_keys_are_told(config, key):
    section, name = key.split(".")
    del config[section][name]
    with pytest.raises(UserError, match=f"^{key} is missing"):
        Experiment.from_config(config)
