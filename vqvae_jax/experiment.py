"""Check a config, and build the model and the options of each section."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import jax
import numpy as np

from vqvae_jax import options, registry
from vqvae_jax.data.batches import TrainBatches, eval_batches
from vqvae_jax.data.source import Batch, Example, Source, num_bytes
from vqvae_jax.models.base import second_models
from vqvae_jax.options import require_choice, require_section, shown
from vqvae_jax.registry import ModelSpec, SecondStageSpec
from vqvae_jax.runtime import distributed
from vqvae_jax.runtime.errors import require
from vqvae_jax.training import sharding
from vqvae_jax.training.config import TrainingConfig

_SECTIONS = ("seed", "data", "model", "training", "samples", "evaluation")
# Metadata of codes that stand in until there are some.
_UNKNOWN_CODES = {"action_names": (), "class_names": ()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplesConfig:
    """The `samples` section.

    Attributes:
      num_samples: samples to draw, shared evenly among the classes.
      batch_size: samples drawn at once.
      temperature: divides the logits; below 1 for likelier samples.
      top_k: draw each code from the k most likely; 0 for all.
      top_p: draw each code from the most likely with this total probability.
      guidance: weight of the label, 1 for the model itself; others need
        `prior.label_dropout`.
    """

    num_samples: Annotated[int, "> 0", "<= 1048576"] = 100
    batch_size: Annotated[int, "> 0", "<= 1048576"] = 100
    temperature: Annotated[float, "> 0", "<= 1048576"] = 1.0
    top_k: Annotated[int, ">= 0"] = 0
    top_p: Annotated[float, "> 0", "<= 1"] = 1.0
    guidance: Annotated[float, ">= 0"] = 1.0

    def __post_init__(self):
        """Check every option; UserError names the first wrong one."""
        options.check(self)

    @property
    def draw_options(self) -> dict[str, float | int | None]:
        """Arguments of `Prior.sample`; None for options without effect."""
        return {
            "temperature": self.temperature,
            "top_k": self.top_k or None,
            "top_p": self.top_p if self.top_p < 1 else None,
            "guidance": self.guidance if self.guidance != 1 else None,
        }

    @property
    def draw_options_without_labels(self) -> dict[str, float | int | None]:
        """Arguments of `sample` of models without labels."""
        return {k: v for k, v in self.draw_options.items() if k != "guidance"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """The `evaluation` section.

    Attributes:
      batch_size: examples evaluated, or encoded, at once.
      classify_samples: train a classifier on the real images' pixels and report the
        fraction of samples that it assigns to their class; for small, simple images
        with labels, and samples of a prior.
      train_grids: grids of codes, drawn from train, on which the prior's bits per code
        on train are measured; 0 for all.
      sum_over_classes: measure the bits of codes whose class is not known too, which
        takes a pass of a class-conditional prior for each class.
    """

    batch_size: Annotated[int, ">= 1", "<= 1048576"] = 100
    classify_samples: bool = False
    train_grids: Annotated[int, ">= 0"] = 10_000
    sum_over_classes: bool = True

    def __post_init__(self):
        """Check every option; UserError names the first wrong one."""
        options.check(self)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All sections of a config.

    Attributes:
      seed: determines every random choice.
      data: options of the data.
      kind: key of `registry.MODELS`, and name of the stage that trains the model.
      model: model of that kind.
      training: training options of the model.
      second_stage: key of `registry.SECOND_STAGES`; None without a second stage.
      second_options: config section of the second stage, whose models also need the
        metadata of the codes.
      second_training: training options of each model of the second stage.
      samples: options of sampling.
      evaluation: options of evaluation.
    """

    seed: int
    data: Any
    kind: str
    model: Any
    training: TrainingConfig
    second_stage: str | None
    second_options: Mapping[str, Any] | None
    second_training: TrainingConfig | None
    samples: SamplesConfig
    evaluation: EvaluationConfig

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], *, given: Mapping[str, Any] | None = None
    ) -> "Experiment":
        """Check a config from an experiment file or `config.json`, and build it.

        Args:
          config: nested mappings.
          given: options of the model that the opened data decide, such as the names of
            speakers; placeholders by default.

        Raises:
          UserError: a key is unknown, missing or has an invalid value.
        """
        kind = kind_of(config)
        spec = registry.MODELS[kind]
        second = second_stage_of(kind, config)
        training = second and training_section(second)
        names = _SECTIONS + ((second, training) if second else ())
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
        data = options.build(registry.load(spec.data), config["data"], name="data")
        decided = {k: v for k, v in (given or {}).items() if k in data.placeholders}
        if second is not None:
            require_section(config[second], name=second)
        experiment = cls(
            seed=seed,
            data=data,
            kind=kind,
            model=options.build(
                registry.load(spec.model),
                {k: v for k, v in config["model"].items() if k != "kind"},
                name="model",
                **data.given | data.placeholders | decided,
            ),
            training=_section(TrainingConfig, config, "training"),
            second_stage=second,
            second_options=dict(config[second]) if second else None,
            second_training=(
                _section(TrainingConfig, config, training) if second else None
            ),
            samples=_section(SamplesConfig, config, "samples"),
            evaluation=_section(EvaluationConfig, config, "evaluation"),
        )
        experiment._check_samples()
        return experiment

    def _check_samples(self) -> None:
        """Raise UserError for options of sampling that have no effect."""
        label_dropout = 0.0
        if self.second_stage is not None:
            placeholders = {
                "grid": getattr(self.model, "grid", ()),
                "num_codes": self.model.num_codes,
                **_UNKNOWN_CODES,
                "class_names": getattr(self.model, "speaker_names", ()),
            }
            # Building the models checks their options too.
            model = self.second_models(placeholders)[self.second_stage]
            label_dropout = getattr(model, "label_dropout", 0.0)
        if not self.model.traits.draws_logits:
            default = SamplesConfig()
            for name in ("temperature", "top_k", "top_p"):
                value, usual = getattr(self.samples, name), getattr(default, name)
                require(
                    value == usual,
                    f"samples.{name}={value} does nothing for a {self.kind}, whose "
                    f"samples are not drawn from logits: set it to {usual}",
                )
        require(
            self.samples.guidance == 1 or label_dropout > 0,
            f"samples.guidance={self.samples.guidance} needs prior.label_dropout "
            "above 0",
        )
        draws_classes = self.second_spec is not None and hasattr(
            registry.load(self.second_spec.model), "num_classes"
        )
        require(
            draws_classes or not self.evaluation.classify_samples,
            "evaluation.classify_samples=True needs samples of known classes, which "
            "only a prior draws: set it to False",
        )

    @property
    def spec(self) -> ModelSpec:
        """The model's row of the registry."""
        return registry.MODELS[self.kind]

    @property
    def second_spec(self) -> SecondStageSpec | None:
        """The second stage's row of the registry; None without one."""
        return self.second_stage and registry.SECOND_STAGES[self.second_stage]

    def with_given(self, given: Mapping[str, Any]) -> "Experiment":
        """Return this experiment with options of the model that the data decide."""
        model = dataclasses.replace(self.model, **given)
        return dataclasses.replace(self, model=model)

    def train_batches(
        self,
        source: Source,
        config: TrainingConfig,
        *,
        random_flip: bool = False,
        augment: Callable[[Example, int], Example] | None = None,
    ) -> TrainBatches:
        """Return endless training batches: this process's rows of each batch.

        Raises:
          UserError: with `data.on_device`, the set does not fit into a device.
        """
        on_device = self.data.on_device and augment is None
        if on_device:
            sharding.require_room(num_bytes(source), key="data.on_device")
        return TrainBatches(
            source,
            batch_size=config.batch_size,
            seed=self.seed,
            random_flip=random_flip,
            augment=augment,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_workers=self.data.num_workers,
            on_device=on_device,
        )

    def init_batch(
        self,
        source: Source,
        config: TrainingConfig,
        *,
        augment: Callable[[Example, int], Example] | None = None,
    ) -> Batch:
        """Return this process's rows of the batch that initialises a model.

        That batch consists of `init_batches` training batches. Each process reads all
        of them: with separate shares, the order of the rows, and with it the random
        numbers of each row, would depend on the number of processes.
        """
        batches = TrainBatches(
            source, batch_size=config.batch_size, seed=self.seed, augment=augment
        )
        first = [next(batches) for _ in range(config.init_batches)]
        batches.close()
        return jax.tree.map(
            lambda *arrays: distributed.own_rows(np.concatenate(arrays)), *first
        )

    def eval_batches(self, source: Source) -> Iterator[Batch]:
        """Return batches with each example once: this process's rows of each batch."""
        return eval_batches(source, **self.eval_sizes)

    @property
    def eval_sizes(self) -> dict[str, int]:
        """The batch size of evaluation, and this process's share of it.

        It is rounded up to a multiple of the devices: no result depends on it.
        """
        return {
            "batch_size": sharding.rounded_up(self.evaluation.batch_size),
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
        }

    def second_models(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return the second stage's models for codes, by the stages that train them.

        Args:
          metadata: of the codes.

        Raises:
          UserError: an option of the second stage's section is invalid.
        """
        return second_models(self.second_stage, self.second_options, metadata)


def default_config(kind: str, second_stage: str | None = None) -> dict[str, Any]:
    """Return a config of defaults, as nested dicts.

    Args:
      kind: key of `registry.MODELS`.
      second_stage: key of `registry.SECOND_STAGES`; None without a second stage.
    """
    spec = registry.MODELS[kind]
    config = {
        "seed": 0,
        "data": options.defaults(registry.load(spec.data)),
        "model": {"kind": kind} | options.defaults(registry.load(spec.model)),
        "training": options.defaults(TrainingConfig),
        "samples": options.defaults(SamplesConfig),
        "evaluation": options.defaults(EvaluationConfig),
    }
    if second_stage is not None:
        model = registry.load(registry.SECOND_STAGES[second_stage].model)
        config[second_stage] = options.defaults(model)
        config[training_section(second_stage)] = options.defaults(TrainingConfig)
    return config


def with_kinds(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config in which sections hold other dataclasses of their choice.

    Their other keys are then those of that dataclass (`options.with_kind`).

    Args:
      config: nested dicts.
      changes: values of keys, of which those named `kind` are used, as
        {"model.quantizer.kind": "fsq"}; a suite's keys may start with the sections that
        its configs are in.

    Raises:
      UserError: a key names no such choice, or a kind is unknown.
    """
    changed = dict(config)
    kinds = {k: v for k, v in changes.items() if k.rpartition(".")[2] == "kind"}
    # A section inside of another one that changes comes after it.
    for key, kind in sorted(kinds.items(), key=lambda item: item[0].count(".")):
        require("." in key, f"{key} is not an option")
        first, *path = key.split(".")[:-1]
        section = changed.get(first)
        require(
            isinstance(section, Mapping), f"{key}: the config has no section {first!r}"
        )
        if first == "model":
            require(bool(path), f"{key} cannot be changed: choose another experiment")
            cls = registry.load(registry.MODELS[kind_of(changed)].model)
        elif first in registry.SECOND_STAGES and path:
            cls = registry.load(registry.SECOND_STAGES[first].model)
        else:
            require(bool(path), f"{key} is not an option")
            inside = ".".join(key.split(".")[1:])
            changed[first] = with_kinds(section, {inside: kind})
            continue
        changed[first] = options.with_kind(cls, section, path, kind, name=first)
    return changed


def training_section(second_stage: str) -> str:
    """Return the name of the section that trains the models of a second stage."""
    return f"{second_stage}_training"


def kind_of(config: Mapping[str, Any]) -> str:
    """Return the kind of a config's model.

    Raises:
      UserError: the kind is missing or unknown.
    """
    require("model" in config, "model is missing from the config")
    require_section(config["model"], name="model")
    kind = config["model"].get("kind")
    require_choice("model.kind", kind, registry.MODELS)
    return kind


def _section(cls: type, config: Mapping[str, Any], name: str) -> Any:
    return options.build(cls, config[name], name=name)


def second_stage_of(kind: str, config: Mapping[str, Any]) -> str | None:
    """Return the second stage whose sections a config has; None without one.

    Raises:
      UserError: the config has two second stages, or lacks a required one.
    """
    spec = registry.MODELS[kind]
    present = [
        name
        for name in spec.second_stages
        if name in config or training_section(name) in config
    ]
    choices = f"a {kind} is followed by exactly one of: " + ", ".join(
        f"{name} with {training_section(name)}" for name in spec.second_stages
    )
    if spec.requires_second_stage:
        first = spec.second_stages[0]
        require(bool(present), f"{first} is missing from the config; {choices}")
    require(
        len(present) < 2, f"{' and '.join(present)} are both in the config; {choices}"
    )
    return present[0] if present else None
