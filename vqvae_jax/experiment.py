"""A whole experiment: every section of a config, checked and built."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from vqvae_jax.data.batches import TrainBatches, eval_batches, train_batches
from vqvae_jax.data.config import DataConfig
from vqvae_jax.data.source import Batch, Example, Source
from vqvae_jax.models import second as second_lib
from vqvae_jax.models.base import require_buildable
from vqvae_jax.models.first import KINDS, Shapes, second_of
from vqvae_jax.options import require_section, section, shown
from vqvae_jax.runtime import distributed
from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.speech.data_config import SpeechDataConfig
from vqvae_jax.tasks.speech.utterances import Utterances, utterance_batches
from vqvae_jax.training.config import MAX_BATCH, TrainingConfig

_SECTIONS = ("seed", "data", "model", "training", "samples", "evaluation")
# Until the data are open nobody knows who speaks.
_UNKNOWN_SPEAKERS = ("",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplesConfig:
    """The `samples` section.

    Attributes:
      num_samples: how many to draw, shared evenly among the classes.
      batch_size: drawn at once.
      temperature: of the prior's logits.
      top_k: draw each code from the k likeliest; 0 for all.
      top_p: draw each code from the likeliest that have this probability together.
      guidance: how much the label counts, 1 for the model itself; others need
        prior.label_dropout.
    """

    num_samples: int = 100
    batch_size: int = 100
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0

    def __post_init__(self):
        """Check every option."""
        for name in ("num_samples", "batch_size", "temperature"):
            value = getattr(self, name)
            require(value > 0, f"{name} must be above 0, got {value}")
            require(value <= MAX_BATCH, f"{name} is too large: {value}")
        for name in ("top_k", "guidance"):
            value = getattr(self, name)
            require(value >= 0, f"{name} must not be negative, got {value}")
        require(0 < self.top_p <= 1, f"top_p must be in (0, 1], got {self.top_p}")

    @property
    def of_draw(self) -> dict[str, float | int | None]:
        """What `Prior.sample` is told of how to draw; None for what is off."""
        return {
            "temperature": self.temperature,
            "top_k": self.top_k or None,
            "top_p": self.top_p if self.top_p < 1 else None,
            "guidance": self.guidance if self.guidance != 1 else None,
        }

    @property
    def without_labels(self) -> dict[str, float | int | None]:
        """The same for models that know no labels."""
        return {k: v for k, v in self.of_draw.items() if k != "guidance"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """The `evaluation` section.

    Attributes:
      batch_size: examples evaluated, or encoded, at once.
      classify_samples: train a classifier on the real images' pixels and report how
        many of the samples it recognises as their class; for small, simple images
        with labels, and samples of a prior.
      train_grids: grids of codes, drawn from train, that the prior's bits per code on
        train are measured on; 0 for all.
    """

    batch_size: int = 100
    classify_samples: bool = False
    train_grids: int = 10_000

    def __post_init__(self):
        """Check every option."""
        require(self.batch_size >= 1, f"batch_size must be >= 1, got {self.batch_size}")
        require(
            self.batch_size <= MAX_BATCH, f"batch_size is too large: {self.batch_size}"
        )
        require(
            self.train_grids >= 0,
            f"train_grids must not be negative, got {self.train_grids}",
        )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All sections of a config.

    Attributes:
      seed: decides every random choice.
      data: what to read, images or speech.
      kind: a name of `KINDS`, and of the stage that trains the model.
      model: of that kind.
      training: of the model.
      second: what follows it, a name of `SECOND_STAGES`; None for nothing.
      second_options: they wait for the sizes and classes of a VQ-VAE's codes.
      second_training: of each of the second stage's models.
      samples: how many to draw, and how.
      evaluation: how to measure.
    """

    seed: int
    data: DataConfig | SpeechDataConfig
    kind: str
    model: Any
    training: TrainingConfig
    second: str | None
    second_options: Mapping[str, Any] | None
    second_training: TrainingConfig | None
    samples: SamplesConfig
    evaluation: EvaluationConfig

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        *,
        speaker_names: tuple[str, ...] = _UNKNOWN_SPEAKERS,
    ) -> "Experiment":
        """Check a config, as from an experiment file or `config.json`.

        A model of speech has the speakers of its data, once they are known.

        Raises:
          UserError: a key is unknown, missing or has a value that cannot be.
        """
        kind = kind_of(config)
        second = second_of(kind, config)
        of_training = second and second_lib.training_section(second)
        names = _SECTIONS + ((second, of_training) if second else ())
        for name in names:
            require(name in config, f"{name} is missing from the config")
        for name in config:
            require(
                name in names,
                f"{shown(name)[1:-1]} is not a section of a {kind}'s config; there are "
                f"{', '.join(names)}",
            )
        seed = config["seed"]
        require(
            type(seed) is int and 0 <= seed < 2**32,
            f"seed must be an int from 0 to 2**32 - 1, got {shown(seed)}",
        )
        if kind == "speech":
            data = section(SpeechDataConfig, config["data"], name="data")
            given = {"speaker_names": speaker_names}
        else:
            data = section(DataConfig, config["data"], name="data")
            given = {"image_shape": (data.image_size, data.image_size, data.channels)}
        if kind == "pixelcnn":
            given["class_names"] = ()
        if second is not None:
            require_section(config[second], name=second)
        options = {k: v for k, v in config["model"].items() if k != "kind"}
        experiment = cls(
            seed=seed,
            data=data,
            kind=kind,
            model=section(
                KINDS[kind].model,
                options,
                name="model",
                check=require_buildable,
                **given,
            ),
            training=section(TrainingConfig, config["training"], name="training"),
            second=second,
            second_options=dict(config[second]) if second else None,
            second_training=section(
                TrainingConfig, config[of_training], name=of_training
            )
            if second
            else None,
            samples=section(SamplesConfig, config["samples"], name="samples"),
            evaluation=section(
                EvaluationConfig, config["evaluation"], name="evaluation"
            ),
        )
        experiment._check_samples()
        require(
            second == "prior" or not experiment.evaluation.classify_samples,
            "evaluation.classify_samples=True needs samples of known classes, which "
            "only a prior draws: set it to False",
        )
        return experiment

    def _check_samples(self) -> None:
        label_dropout = 0.0
        if self.second is not None:
            facts = {
                "grid": getattr(self.model, "grid", ()),
                "num_codes": self.model.num_codes,
                "class_names": getattr(self.model, "speaker_names", ()),
                "action_names": (),
            }
            # To build the models checks their options too.
            model = self.make_second(facts)[self.second]
            label_dropout = getattr(model, "label_dropout", 0.0)
        if self.kind == "pixelcnn":
            require(
                self.model.label_dropout == 0,
                f"model.label_dropout={self.model.label_dropout} does nothing: this "
                "PixelCNN is trained without labels. Set it to 0.0",
            )
        elif self.kind in ("gan", "vae", "vimco"):
            default = SamplesConfig()
            for name in ("temperature", "top_k", "top_p"):
                value, usual = getattr(self.samples, name), getattr(default, name)
                require(
                    value == usual,
                    f"samples.{name}={value} does nothing for a {self.kind}, whose "
                    f"samples are drawn from no logits: set it to {usual}",
                )
        require(
            self.samples.guidance == 1 or label_dropout > 0,
            f"samples.guidance={self.samples.guidance} needs prior.label_dropout "
            "above 0",
        )

    def with_speakers(self, speaker_names: tuple[str, ...]) -> "Experiment":
        """Return the same experiment, whose model of speech knows who speaks."""
        model = dataclasses.replace(self.model, speaker_names=speaker_names)
        return dataclasses.replace(self, model=model)

    @property
    def init_shapes(self) -> Shapes:
        """The shapes of a batch that the model can be initialised with."""
        return KINDS[self.kind].batch(self.model)

    def train_batches(
        self,
        source: Source,
        config: TrainingConfig,
        *,
        random_flip: bool = False,
        augment: Callable[[Example, int], Example] | None = None,
    ) -> TrainBatches:
        """Return this process's endless batches of a source, augmented on demand."""
        return train_batches(
            source,
            batch_size=config.batch_size,
            seed=self.seed,
            random_flip=random_flip,
            augment=augment,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_workers=self.data.num_workers,
        )

    def init_batch(
        self,
        source: Source,
        config: TrainingConfig,
        *,
        augment: Callable[[Example, int], Example] | None = None,
    ) -> Batch:
        """Return this process's rows of the batches that a model is initialised on.

        They are one batch. Each process reads all of it: to share every batch would put
        the rows in another order, and with them what is drawn from the data.
        """
        batches = train_batches(
            source, batch_size=config.batch_size, seed=self.seed, augment=augment
        )
        first = [next(batches) for _ in range(config.init_batches)]
        batches.close()
        return jax.tree.map(
            lambda *arrays: distributed.own_rows(np.concatenate(arrays)), *first
        )

    def eval_batches(self, source: Source) -> Iterator[Batch]:
        """Return this process's batches of a source, each example once."""
        return eval_batches(source, **self._evaluated_at_once)

    def utterance_batches(
        self, source: Utterances, *, phones: bool = False
    ) -> Iterator[Batch]:
        """Return this process's batches of whole utterances, each once.

        With the phone at the middle of what each code stands for, on demand.
        """
        downsampling = self.model.downsampling
        # Few lengths: each is compiled anew.
        multiple = -(-self.data.sample_rate // downsampling) * downsampling
        return utterance_batches(
            source,
            multiple_of=multiple,
            frame=downsampling if phones else None,
            **self._evaluated_at_once,
        )

    @property
    def _evaluated_at_once(self) -> dict[str, int]:
        return {
            "batch_size": self.evaluation.batch_size,
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
        }

    @property
    def prior_training(self) -> TrainingConfig | None:
        """How the prior is trained, where a prior is what follows."""
        return self.second_training if self.second == "prior" else None

    def make_second(self, facts: second_lib.Facts) -> dict[str, Any]:
        """Build the second stage's models for codes with these metadata.

        Returns each by the name of the stage that trains it.

        Raises:
          UserError: an option of the second stage's section cannot be.
        """
        return second_lib.models_of(self.second, self.second_options, facts)


def kind_of(config: Mapping[str, Any]) -> str:
    """Return what kind of model a config is of.

    Raises:
      UserError: it is of none that there is.
    """
    require("model" in config, "model is missing from the config")
    require_section(config["model"], name="model")
    kind = config["model"].get("kind")
    require(
        isinstance(kind, str) and kind in KINDS,
        f"model.kind must be one of {', '.join(KINDS)}, got {shown(kind)}",
    )
    return kind
