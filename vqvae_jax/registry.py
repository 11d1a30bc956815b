"""What a config or a command line may name: each row an import path, loaded on use.

A path is "module:attribute". Importing this module imports nothing else, so that a name
can be checked, and listed in a help text, before anything heavy is loaded. `tasks/` and
`contrib/` are named here and nowhere else outside of them: with one of their folders
deleted only its own rows fail, and only when they are used.
"""

import importlib
import importlib.util
from typing import Any, NamedTuple


class ModelSpec(NamedTuple):
    """A model of data that `model.kind` may name.

    Attributes:
      model: path of the options dataclass, which implements `training.Model`.
      title: its name in reports.
      data: path of the dataclass of the `data` section.
      open_data: path of the function from such a section to its data set.
      stages: path of the function from an experiment to the stages of its run.
      second_stages: rows of `SECOND_STAGES` that may follow it.
      requires_second_stage: whether one of them must.
      commands: rows of `COMMANDS` that accept it.
      coder: path of the class that maps files to codes and back; "" without `encode`.
      sampler: path of the function that makes the sampler of the `sample` command.
      example: code that uses a restored model, for its card.
    """

    model: str
    title: str
    data: str = "vqvae_jax.data.config:DataConfig"
    open_data: str = "vqvae_jax.data.dataset:open_dataset"
    stages: str = "vqvae_jax.pipeline.images:image_stages"
    second_stages: tuple[str, ...] = ()
    requires_second_stage: bool = False
    commands: tuple[str, ...] = ("info", "sample")
    coder: str = ""
    sampler: str = "vqvae_jax.cli.sample:image_sampler"
    example: str = ""


class SecondStageSpec(NamedTuple):
    """Models of codes, named as the config section of their options.

    Attributes:
      model: path of the options dataclass.
      stage: path of the `pipeline.run.SecondStage` that trains, samples, evaluates and
        reports them.
      variants: the models to train: the name of each stage to the attribute of the
        options that gives its model, "" for the options themselves.
      titles: what reports call each of them.
    """

    model: str
    stage: str
    variants: dict[str, str]
    titles: dict[str, str]


MODELS: dict[str, ModelSpec] = {
    "vqvae": ModelSpec(
        "vqvae_jax.models.vqvae:VQVAE",
        "VQ-VAE",
        stages="vqvae_jax.pipeline.images:coded_image_stages",
        second_stages=("prior", "hierarchy", "video"),
        requires_second_stage=True,
        commands=(
            "info",
            "encode",
            "decode",
            "reconstruct",
            "sample",
            "evaluate",
            "interpolate",
            "compress",
            "decompress",
        ),
        coder="vqvae_jax.cli.coding:ImageCoder",
        sampler="vqvae_jax.cli.sample:prior_sampler",
        example="codes = model.encode(params, images)  # uint8 [B, {shape}]\n"
        "images = model.decode(params, codes)",
    ),
    "vae": ModelSpec(
        "vqvae_jax.models.vae:VAE",
        "VAE",
        commands=("info", "reconstruct", "sample", "evaluate"),
        coder="vqvae_jax.cli.coding:ImageCoder",
    ),
    "vimco": ModelSpec(
        "vqvae_jax.models.vimco:VIMCO",
        "VIMCO",
        commands=("info", "reconstruct", "sample", "evaluate"),
        coder="vqvae_jax.cli.coding:ImageCoder",
    ),
    "pixelcnn": ModelSpec("vqvae_jax.models.pixelcnn:PixelModel", "PixelCNN"),
    "gan": ModelSpec("vqvae_jax.models.gan:GAN", "GAN"),
    "speech": ModelSpec(
        "vqvae_jax.tasks.speech.model:SpeechVQVAE",
        "VQ-VAE of speech",
        data="vqvae_jax.tasks.speech.dataset:SpeechDataConfig",
        open_data="vqvae_jax.tasks.speech.dataset:open_speech",
        stages="vqvae_jax.tasks.speech.stages:speech_stages",
        second_stages=("sequence_prior",),
        commands=("info", "encode", "decode", "reconstruct", "sample"),
        coder="vqvae_jax.tasks.speech.coder:SpeechCoder",
        sampler="vqvae_jax.tasks.speech.coder:speech_sampler",
        example="codes = model.encode(params, audio)  # int16 [B, T]\n"
        "audio = model.decode(params, key, codes, speakers=speakers)",
    ),
}

SECOND_STAGES: dict[str, SecondStageSpec] = {
    "prior": SecondStageSpec(
        "vqvae_jax.models.prior:Prior",
        "vqvae_jax.pipeline.images:PRIOR",
        variants={"prior": ""},
        titles={"prior": "prior"},
    ),
    # The last two are baselines of the first (section 4.2).
    "hierarchy": SecondStageSpec(
        "vqvae_jax.tasks.hierarchy.model:Hierarchy",
        "vqvae_jax.tasks.hierarchy.stages:HIERARCHY",
        variants={
            "hierarchy": "",
            "hierarchy_vae": "continuous",
            "hierarchy_without_latents": "without_latents",
        },
        titles={
            "hierarchy": "second VQ-VAE",
            "hierarchy_vae": "VAE with the second VQ-VAE's networks",
            "hierarchy_without_latents": "PixelCNN without latents",
        },
    ),
    # The last one is a baseline of the first (section 4.4).
    "video": SecondStageSpec(
        "vqvae_jax.tasks.video.model:Video",
        "vqvae_jax.tasks.video.stages:VIDEO",
        variants={"video": "", "video_frames_alone": "frames_alone"},
        titles={
            "video": "video model",
            "video_frames_alone": "same model of frames alone",
        },
    ),
    "sequence_prior": SecondStageSpec(
        "vqvae_jax.tasks.speech.prior:SequencePrior",
        "vqvae_jax.tasks.speech.stages:SEQUENCE_PRIOR",
        variants={"sequence_prior": ""},
        titles={"sequence_prior": "prior of sequences"},
    ),
}

# By the config section that only such a study has.
STUDIES: dict[str, str] = {
    "systems": "vqvae_jax.contrib.studies.comparison:run",
    "vary": "vqvae_jax.contrib.studies.robustness:run",
    "quantizers": "vqvae_jax.contrib.studies.quantizers:run",
}

# The function from the source of a trained model to its arrays and metadata. Training
# calls it, although it is in a later room.
FIND_MODEL = "vqvae_jax.pretrained.loading:find"

# Functions from a `data` section to the splits that its source brings.
IMAGE_SOURCES: dict[str, str] = {
    "tfds": "vqvae_jax.data.tfds:open_splits",
    "folder": "vqvae_jax.data.folder:open_splits",
}
SPEECH_SOURCES: dict[str, str] = {
    "tfds": "vqvae_jax.tasks.speech.tfds:open_splits",
    "folder": "vqvae_jax.tasks.speech.folder:open_splits",
}

# TFDS builders that come with the package, by the first part of `data.name`.
EMBEDDED_SETS: dict[str, str] = {
    "digits": "vqvae_jax.data.digits:Digits",
    "maze": "vqvae_jax.data.maze:Maze",
    "speech": "vqvae_jax.contrib.synthetic_speech.builder:Speech",
}

# Sections of a run's page about its codes; those whose module is missing are left out.
REPORT_SECTIONS: tuple[str, ...] = (
    "vqvae_jax.contrib.playground.playground:playground_section",
)


class CommandSpec(NamedTuple):
    """A command of the command line.

    Attributes:
      configure: path of the function that adds its arguments to a parser; its module
        imports quickly.
      run: path of the function that runs it.
      summary: its line in the list of commands.
      example: arguments that show its use.
      needs_model: whether its first argument is a trained model.
    """

    configure: str
    run: str
    summary: str
    example: str
    needs_model: bool = True


COMMANDS: dict[str, CommandSpec] = {
    "models": CommandSpec(
        "vqvae_jax.cli.arguments:models",
        "vqvae_jax.cli.models:models",
        "list the trained models that come with the package",
        "",
        needs_model=False,
    ),
    "info": CommandSpec(
        "vqvae_jax.cli.arguments:info",
        "vqvae_jax.cli.loaded:info",
        "print what a model is",
        "runs/digits",
    ),
    "encode": CommandSpec(
        "vqvae_jax.cli.arguments:encode",
        "vqvae_jax.cli.coding:encode",
        "images or recordings to codes",
        "runs/digits photos codes",
    ),
    "decode": CommandSpec(
        "vqvae_jax.cli.arguments:decode",
        "vqvae_jax.cli.coding:decode",
        "codes to images or recordings",
        "runs/digits codes pictures",
    ),
    "reconstruct": CommandSpec(
        "vqvae_jax.cli.arguments:reconstruct",
        "vqvae_jax.cli.coding:reconstruct",
        "encode and decode images or recordings",
        "runs/digits photos reconstructed",
    ),
    "sample": CommandSpec(
        "vqvae_jax.cli.arguments:sample",
        "vqvae_jax.cli.sample:sample",
        "draw new images or recordings",
        "runs/digits samples --num 20 --temperature 0.9",
    ),
    "evaluate": CommandSpec(
        "vqvae_jax.cli.arguments:evaluate",
        "vqvae_jax.cli.evaluate:evaluate",
        "measure a model on its test split",
        "runs/digits results.json",
    ),
    "interpolate": CommandSpec(
        "vqvae_jax.cli.arguments:interpolate",
        "vqvae_jax.cli.interpolate:interpolate",
        "interpolate between two images",
        "runs/digits a.png b.png between",
    ),
    "compress": CommandSpec(
        "vqvae_jax.contrib.codec.arguments:compress",
        "vqvae_jax.contrib.codec.commands:compress",
        "compress images to one file",
        "runs/digits photos photos.vq",
    ),
    "decompress": CommandSpec(
        "vqvae_jax.contrib.codec.arguments:decompress",
        "vqvae_jax.contrib.codec.commands:decompress",
        "decompress such a file to images",
        "runs/digits photos.vq pictures",
    ),
}


def load(path: str) -> Any:
    """Import what a row names.

    Args:
      path: "module:attribute", or "module" for the module itself.

    Raises:
      ModuleNotFoundError: the module, or one that it imports, is not installed.
    """
    module, _, attribute = path.partition(":")
    imported = importlib.import_module(module)
    return getattr(imported, attribute) if attribute else imported


def is_available(path: str) -> bool:
    """Return whether the module of a row exists; it is not imported."""
    module = path.partition(":")[0]
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # Of a package above it.
        return False


def titles() -> dict[str, str]:
    """Return what reports call each model, by the name of the stage that trains it."""
    found = {kind: spec.title for kind, spec in MODELS.items()}
    for spec in SECOND_STAGES.values():
        found |= spec.titles
    return found
