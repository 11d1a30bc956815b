"""With `remat` a model keeps less for its gradient, which stays the same.

This includes dropout: its keys must be the same where layers are recomputed.
"""

import jax
import pytest
from tiny_models import every_model, set_in_networks, slow_but
from tree_checks import assert_close

KEY = jax.random.key(2)
# A GAN has no large network.
NAMES = [name for name in every_model() if name != "gan"]


@pytest.mark.parametrize("name", slow_but(NAMES, "vqvae", "prior"))
def test_less_is_kept_and_the_gradient_is_the_same(name, tiny_model):
    model, (params, batch) = tiny_model(name)
    rematerialized = set_in_networks(model, "remat", True)

    def shapes(model):
        return jax.eval_shape(lambda batch: model.init(KEY, batch), batch)

    assert shapes(rematerialized) == shapes(model)

    def gradient(model):
        loss = jax.value_and_grad(lambda params: model.loss(params, KEY, batch)[0])
        return jax.jit(loss)(params)

    assert_close(gradient(rematerialized), gradient(model), atol=1e-6)

    def kept(model):
        """Return the bytes between the forward and the backward pass."""

        def forward(params):
            return jax.vjp(lambda params: model.loss(params, KEY, batch)[0], params)[1]

        arrays = jax.tree.leaves(jax.eval_shape(forward, params))
        return sum(array.size * array.dtype.itemsize for array in arrays)

    assert kept(rematerialized) < kept(model)
