"""Parts that several models share: checks of sizes, and training with a quantizer."""

import dataclasses
import re
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import options
from vqvae_jax.models.base import (
    Carry,
    TrainedByGradient,
    TrainedWithQuantizer,
    require_halvable,
    require_pixelcnn,
    require_sides,
)
from vqvae_jax.quantizers import VQ, Codebook
from vqvae_jax.quantizers.codebook import init_uniform
from vqvae_jax.runtime.errors import UserError

VQ_LOSS = VQ(
    num_codes=4,
    num_codebooks=2,
    dim=3,
    beta=0.5,
    codebook_update="loss",
    ema_decay=0.75,
    codebook_init="uniform",
)
VQ_EMA = dataclasses.replace(VQ_LOSS, codebook_update="ema")
KEY = jax.random.key(2)


class TestSizes:
    def test_sides_that_can_be_halved_pass(self):
        require_halvable((8, 24, 3), num_downsamples=3, key="key")
        require_halvable((7, 5, 1), num_downsamples=0, key="key")

    @pytest.mark.parametrize("shape", [(8, 20, 3), (20, 8, 3)])
    def test_other_sides_raise(self, shape):
        message = (
            r"^encoder\.num_downsamples=3 .* multiples of 8, but the image is "
            f"{shape[0]}x{shape[1]}"
        )
        with pytest.raises(UserError, match=message):
            require_halvable(shape, num_downsamples=3, key="encoder.num_downsamples")

    @pytest.mark.parametrize("sides", [(0, 8, 3), (8, 8, -1), (2**20, 2**10, 2)])
    def test_invalid_sides_raise(self, sides):
        require_sides("grid", (2**20, 2**10, 1))
        with pytest.raises(UserError, match=r"^grid must be three sizes .*, got \("):
            require_sides("grid", sides)

    @pytest.mark.parametrize("shape", [(1, 7, 8), (2, 6, 8), (2, 7, 9)])
    def test_parameters_of_another_pixelcnn_raise(self, shape):
        model = types.SimpleNamespace(grid=(5, 4, 2), num_codes=7, channels=8)

        def params_of(shape):
            return {"params": {"embedding": {"tables": np.zeros(shape)}}}

        require_pixelcnn("prior", model, params_of((2, 7, 8)))
        message = f"= {re.escape(str(shape))}, this prior has {re.escape('(2, 7, 8)')}"
        with pytest.raises(UserError, match=message):
            require_pixelcnn("prior", model, params_of(shape))


def test_models_without_a_quantizer_are_trained_by_the_gradient_alone():
    model, params = TrainedByGradient(), {"a": jnp.zeros(2), "b": (jnp.ones(3),)}
    assert model.trainable(params) == {"a": True, "b": (True,)}
    assert model.update(params, KEY, None, axis_name="data") is params


class Params(NamedTuple):
    network: Any
    quantizer: Any


@dataclasses.dataclass(frozen=True)
class Quantized(TrainedWithQuantizer):
    quantizer: VQ


class TestTrainedWithQuantizer:
    @pytest.fixture
    def params(self):
        codebook = init_uniform(jax.random.key(0), num_codes=4, dim=3, num_codebooks=2)
        return Params({"kernel": jnp.ones((2, 2))}, codebook)

    @pytest.fixture
    def carry(self):
        """Five vectors, all with code 0; the third is padding."""
        z_e = jax.random.normal(jax.random.key(1), (5, 6))
        mask = jnp.array([True, True, False, True, True])
        return Carry(z_e, jnp.zeros((5, 2), jnp.int32), mask)

    @pytest.fixture
    def valid(self, carry):
        """The valid vectors in NumPy."""
        return np.asarray(carry.z_e)[np.asarray(carry.mask)]

    @pytest.mark.parametrize("quantizer", [VQ_LOSS, VQ_EMA], ids=["loss", "ema"])
    def test_only_a_loss_makes_the_codebook_trainable(self, quantizer, params):
        marks = Quantized(quantizer).trainable(params)
        is_trainable = quantizer.codebook_update == "loss"
        assert marks.network == {"kernel": True}
        assert marks.quantizer == Codebook(is_trainable, False, False)

    def test_codebook_loss_counts_only_where_it_moves_the_codebook(self):
        terms = {
            "codebook": jnp.array([1.0, 2.0]),
            "commitment": jnp.array([10.0, 20.0]),
        }
        assert VQ_LOSS.total_loss(terms).tolist() == [6.0, 12.0]
        assert VQ_EMA.total_loss(terms).tolist() == [5.0, 10.0]

    def test_update_with_a_loss_moves_the_counts_alone(self, params, carry):
        updated = Quantized(VQ_LOSS).update(params, KEY, carry)
        assert updated.network is params.network
        np.testing.assert_array_equal(
            updated.quantizer.embeddings, params.quantizer.embeddings
        )
        np.testing.assert_allclose(updated.quantizer.counts[:, 0], 0.75 + 0.25 * 4)

    def test_update_by_ema_moves_used_codes_to_their_vectors(
        self, params, carry, valid
    ):
        updated = Quantized(VQ_EMA).update(params, KEY, carry).quantizer
        before = np.asarray(params.quantizer.embeddings)
        expected = (0.75 * before[0, 0] + 0.25 * valid[:, :3].sum(0)) / 1.75
        np.testing.assert_allclose(updated.embeddings[0, 0], expected, rtol=1e-5)
        np.testing.assert_allclose(updated.embeddings[:, 1:], before[:, 1:], rtol=1e-5)

    def test_update_restarts_dead_codes_from_valid_vectors(self, params, carry, valid):
        quantizer = dataclasses.replace(VQ_LOSS, dead_code_threshold=0.8)
        updated = Quantized(quantizer).update(params, KEY, carry).quantizer
        for row in np.asarray(updated.embeddings[1, 1:]):
            assert np.abs(valid[:, 3:] - row).max(axis=1).min() == 0

    def test_uniform_initialisation_does_not_compute_z_e(self):
        def never():
            raise AssertionError

        keys, mask = jax.random.split(jax.random.key(0)), jnp.ones(4, bool)
        codebook = Quantized(VQ_LOSS)._init_quantizer(*keys, never, mask)
        assert np.abs(codebook.embeddings).max() <= 1 / 4

    def test_kmeans_initialisation_fits_the_data(self):
        """With four vectors for four codes, each code is a vector, group by group."""
        quantizer = dataclasses.replace(VQ_LOSS, codebook_init="kmeans")
        keys, mask = jax.random.split(jax.random.key(0)), jnp.ones(4, bool)
        z_e = jax.random.normal(jax.random.key(1), (4, 6)) + 5
        codebook = Quantized(quantizer)._init_quantizer(*keys, lambda: z_e, mask)
        for group in range(2):
            rows = sorted(map(tuple, np.asarray(codebook.embeddings[group])))
            vectors = sorted(map(tuple, np.asarray(z_e[:, 3 * group : 3 * group + 3])))
            np.testing.assert_allclose(rows, vectors, rtol=1e-6)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("num_codes", 0, "must be >= 1, got 0"),
            ("num_codebooks", 0, "must be >= 1, got 0"),
            ("dim", 0, "must be >= 1, got 0"),
            ("beta", -0.1, "must be >= 0, got -0.1"),
            ("beta", float("nan"), "must be a finite number, got nan"),
            ("dead_code_threshold", -0.5, "must be >= 0, got -0.5"),
            ("ema_decay", -0.5, "must be >= 0 and < 1, got -0.5"),
            ("ema_decay", 1.0, "must be >= 0 and < 1, got 1.0"),
            ("codebook_update", "sgd", "must be one of loss, ema, gradient, got 'sgd'"),
            ("codebook_init", "zeros", "must be one of kmeans, uniform, got 'zeros'"),
        ],
    )
    def test_invalid_options_raise(self, name, value, message):
        with pytest.raises(UserError) as error:
            options.build(VQ, {name: value}, name="quantizer", base=VQ_LOSS)
        assert str(error.value) == f"quantizer.{name} {message}"
