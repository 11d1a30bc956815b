"""Precision and determinism: no float64, bfloat16 near float32, bit-identical runs."""

import json

import jax
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params
from launch_checks import overrides, python
from tiny_models import slow_but

from vqvae_jax import pipeline, quantizers, restore
from vqvae_jax.data.dataset import open_dataset
from vqvae_jax.experiment import Experiment
from vqvae_jax.quantizers.codebook import init_uniform
from vqvae_jax.quantizers.ema import count_update, ema_update
from vqvae_jax.training.step import init_state, make_train_step

KEY = jax.random.key(0)


def avals(jaxpr):
    """Yield the abstract values of a program and its inner programs."""
    for equation in jaxpr.eqns:
        yield from (variable.aval for variable in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from avals(inner)


def wide(function, *arguments):
    """Return the float64 values inside a function of float32 arguments.

    Skip Python numbers, which have a weak float64 type until they meet an array.
    """
    found = [
        aval
        for aval in avals(jax.make_jaxpr(function)(*arguments).jaxpr)
        if hasattr(aval, "dtype")
    ]
    assert len(found) > 3
    return {
        aval.str_short()
        for aval in found
        if aval.dtype in ("float64", "complex128") and not aval.weak_type
    }


DRAW = {
    "vae": lambda m, p, b: m.sample(p, KEY, num_samples=2),
    "gan": lambda m, p, b: m.sample(p, KEY, num_samples=2),
    "pixelcnn": lambda m, p, b: m.sample(p, KEY, num_samples=2),
    "prior": lambda m, p, b: m.sample(p, KEY, labels=b["label"]),
    "sequence_prior": lambda m, p, b: m.sample(
        p, KEY, num_samples=len(b["speaker"]), speakers=b["speaker"]
    ),
    "video": lambda m, p, b: m.sample(
        p, KEY, b["codes"][:, :1], actions=b["action"][:, :-1]
    ),
    "vqvae": lambda m, p, b: m.reconstruct(p, b["image"]),
    "vimco": lambda m, p, b: m.decode(p, m.encode(p, b["image"])),
    "speech": lambda m, p, b: m.decode(
        p, KEY, m.encode(p, b["audio"]), speakers=b["speaker"]
    ),
    "hierarchy": lambda m, p, b: m.decode(p, KEY, m.encode(p, b["codes"])),
    "hierarchy_vae": lambda m, p, b: m.decode(p, KEY, m.encode(p, b["codes"])),
}


@pytest.mark.parametrize("name", slow_but(DRAW, "vqvae", "prior"))
def test_no_model_requests_float64(name, tiny_model):
    """With x64 disabled JAX warns about such requests, and tests fail on warnings."""
    model, (params, batch) = tiny_model(name)
    optimizer = optax.adam(1e-3)
    options = {"params_ema_decay": 0.9}
    step = make_train_step(model, optimizer, **options)
    state = jax.eval_shape(
        lambda batch: init_state(model, optimizer, KEY, batch, **options), batch
    )
    assert not wide(step, state, batch)
    assert not wide(model.evaluate, params, batch)
    assert not wide(lambda p, b: DRAW[name](model, p, b), params, batch)


VQ = quantizers.VQ(num_codes=5, dim=3)
QUANTIZER = {
    "init": lambda c, z: init_uniform(KEY, num_codes=5, dim=3),
    "quantize": lambda c, z: VQ.quantize(c, z),
    "lookup": lambda c, z: VQ.lookup(c, codes_of(c, z)),
    "ema_update": lambda c, z: ema_update(c, z, codes_of(c, z)),
    "count_update": lambda c, z: count_update(c, codes_of(c, z)),
    "kmeans": lambda c, z: quantizers.kmeans(KEY, c, z),
    "restart": lambda c, z: quantizers.restart(KEY, c, z),
    "perplexity": lambda c, z: quantizers.perplexity(
        quantizers.usage(codes_of(c, z), num_codes=5)
    ),
}


def codes_of(codebook, z_e):
    return quantizers.nearest(codebook.embeddings, z_e[..., None, :])


@pytest.mark.parametrize("name", QUANTIZER)
def test_the_quantizer_stays_in_float32_with_x64_enabled(name):
    """Programs that use the library may enable x64."""
    codebook = init_uniform(KEY, num_codes=5, dim=3)
    z_e = np.zeros((4, 3), "float32")
    with jax.enable_x64(True):
        assert not wide(QUANTIZER[name], codebook, z_e)


def test_batches_and_stored_arrays_have_at_most_32_bits(finished_run, tiny_config):
    experiment = Experiment.from_config(tiny_config)
    dataset = open_dataset(experiment.data)
    batch = next(experiment.train_batches(dataset.train, experiment.training))
    dtypes = {name: array.dtype.name for name, array in batch.items()}
    assert dtypes == {"image": "uint8", "label": "int32", "mask": "bool"}
    _, params = restore(finished_run)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    samples = np.load(finished_run / "samples.npz")
    assert samples["images"].dtype == "uint8"


def last_validation_loss(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    losses = [e["loss"] for e in map(json.loads, lines) if e["split"] == "validation"]
    return losses[-1]


@pytest.mark.slow
def test_bfloat16_trains_like_float32(make_config, digits_dir, tmp_path):
    losses = {}
    for dtype in ("float32", "bfloat16"):
        changes = {
            "data.data_dir": digits_dir,
            "model.encoder.dtype": dtype,
            "model.decoder.dtype": dtype,
            "model.likelihood": "gaussian",
            "training.steps": 600,
            "training.checkpoint_every": 300,
        }
        pipeline.run(make_config("digits", changes), str(tmp_path / dtype), ["vqvae"])
        losses[dtype] = last_validation_loss(tmp_path / dtype)
    print(losses)
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits(
    finished_run, tiny_config, tiny_changes, digits_dir, tmp_path
):
    """In this process, which has run it before, and in another process."""
    pipeline.run(tiny_config, str(tmp_path / "here"), ["vqvae"])
    changes = tiny_changes | {"data.data_dir": digits_dir}
    flags = ["--config=experiments/digits.py", *overrides(changes), "--stages=vqvae"]
    elsewhere = python("launch.py", *flags, f"--workdir={tmp_path / 'elsewhere'}")
    assert elsewhere.returncode == 0, elsewhere.stderr
    expected = jax.tree.leaves(restore(finished_run)[1])
    for workdir in ("here", "elsewhere"):
        found = jax.tree.leaves(restore(tmp_path / workdir)[1])
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
