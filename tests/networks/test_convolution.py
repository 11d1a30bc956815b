"""Convolutions against lax and loops, on all platforms' code paths."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vqvae_jax.networks import convolution
from vqvae_jax.networks.convolution import (
    Conv,
    ConvTranspose,
    conv2d,
    conv2d_transpose,
)
from vqvae_jax.runtime.errors import UserError

NHWC = ("NHWC", "HWIO", "NHWC")
CONVOLUTIONS = [
    # kernel, stride, padding
    ((3, 3), 1, "SAME"),
    ((1, 1), 1, "SAME"),
    ((1, 1), 2, "VALID"),
    ((4, 4), 2, "SAME"),
    ((3, 2), 2, "SAME"),
    ((2, 5), 3, "VALID"),
    ((2, 3), 1, ((2, 0), (1, 1))),
    ((1, 2), 1, ((0, 0), (2, 0))),
]
TRANSPOSED = [((4, 4), 2), ((2, 2), 2), ((2, 6), 2), ((3, 3), 3), ((6, 3), 3)]
# Narrow and wide outputs of a transposed convolution use different algorithms.
CHANNELS = [(3, 5), (7, 70)]


def _normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _lax_conv(x, kernel, stride, padding):
    # Pad explicitly: the gradient of one-sided padding in jaxlib 0.10.2 reads past the
    # end of an array on CPU.
    if not isinstance(padding, str):
        x, padding = jnp.pad(x, ((0, 0), *padding, (0, 0))), "VALID"
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=NHWC
    )


def _assert_same_function(ours, theirs, x, kernel):
    """Compare values and both gradients."""
    cotangent = _normal(*jax.eval_shape(theirs, x, kernel).shape, seed=1)

    @jax.jit
    def compute(x, kernel):
        results = [jax.vjp(op, x, kernel) for op in (ours, theirs)]
        return [(y, *vjp(cotangent)) for y, vjp in results]

    for actual, expected in zip(*compute(x, kernel), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(("window", "stride", "padding"), CONVOLUTIONS)
def test_conv2d_and_its_gradients_equal_lax(window, stride, padding, channels):
    x, kernel = _normal(2, 6, 7, channels[0]), _normal(*window, *channels)
    _assert_same_function(
        lambda x, k: conv2d(x, k, stride=stride, padding=padding),
        lambda x, k: _lax_conv(x, k, stride, padding),
        x,
        kernel,
    )


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(("window", "stride"), TRANSPOSED)
def test_conv2d_transpose_and_its_gradients_equal_lax(window, stride, channels):
    x, kernel = _normal(2, 3, 5, channels[0]), _normal(*window, *channels)
    _assert_same_function(
        lambda x, k: conv2d_transpose(x, k, stride=stride),
        lambda x, k: lax.conv_transpose(x, k, (stride, stride), "SAME"),
        x,
        kernel,
    )


@pytest.mark.parametrize(("window", "stride"), TRANSPOSED)
def test_the_gpu_algorithm_and_its_gradients_equal_lax(window, stride):
    """Runs on the platform of the tests."""
    x, kernel = _normal(2, 3, 5, 3), _normal(*window, 3, 5)
    _assert_same_function(
        lambda x, k: convolution._transpose_by_phases(
            x, k, stride=stride, convolve=convolution._pad_and_convolve
        ),
        lambda x, k: lax.conv_transpose(x, k, (stride, stride), "SAME"),
        x,
        kernel,
    )


def test_on_gpu_no_zeros_are_inserted_between_inputs():
    """The lowered program has one dense convolution per phase."""
    x, kernel = jnp.ones((1, 4, 4, 8)), jnp.ones((4, 4, 8, 8))
    exported = jax.export.export(jax.jit(conv2d_transpose), platforms=["cuda"])(
        x, kernel
    )
    program = exported.mlir_module()
    assert program.count("stablehlo.convolution") == 4
    assert "lhs_dilate = [2" not in program


def test_a_single_output_position_is_a_matrix_product():
    """Runs the branch of GPUs and TPUs on the platform of the tests."""
    x, kernel = _normal(3, 1, 4, 5), _normal(1, 4, 5, 2)
    y = convolution._conv_by_xla(
        jnp.asarray(x), jnp.asarray(kernel), stride=1, pads=((0, 0), (0, 0))
    )
    expected = np.einsum("bijc,ijco->bo", np.float64(x), kernel)
    assert y.shape == (3, 1, 1, 2)
    np.testing.assert_allclose(y[:, 0, 0], expected, atol=1e-5)


def test_padding_of_a_call_overrides_the_attribute():
    conv = Conv(4, (2, 3), padding="SAME")
    x = jnp.asarray(_normal(1, 5, 6, 2))
    params = conv.init(jax.random.key(0), x)
    y = conv.apply(params, x, padding=((1, 0), (0, 0)))
    expected = conv2d(x, params["params"]["kernel"], padding=((1, 0), (0, 0)))
    np.testing.assert_allclose(y, expected, atol=1e-6)
    assert y.shape == (1, 5, 4, 4)


def test_conv2d_equals_a_loop():
    x, kernel = _normal(2, 5, 4, 3), _normal(2, 3, 3, 2)
    padded = np.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0)))
    expected = np.zeros((2, 3, 2, 2))
    for b, i, j, o in itertools.product(*map(range, expected.shape)):
        patch = padded[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 3]
        expected[b, i, j, o] = np.sum(patch.astype(np.float64) * kernel[..., o])
    y = conv2d(jnp.asarray(x), jnp.asarray(kernel), stride=2, padding=((1, 0), (0, 2)))
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_conv2d_transpose_equals_a_loop():
    """Each input adds its product with the flipped kernel to a 4x4 window."""
    x, kernel = _normal(1, 2, 3, 2), _normal(4, 4, 2, 3)
    grid = np.zeros((1, 6, 8, 3))
    for i, j in itertools.product(range(2), range(3)):
        grid[0, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum(
            "i,uvio->uvo", x[0, i, j].astype(np.float64), kernel[::-1, ::-1]
        )
    y = conv2d_transpose(jnp.asarray(x), jnp.asarray(kernel))
    np.testing.assert_allclose(y, grid[:, 1:5, 1:7], atol=1e-5)


@pytest.fixture
def set_chunk(monkeypatch):
    """Return a function that sets the bytes of patches per chunk."""

    def set_to(num_bytes):
        monkeypatch.setattr(convolution, "_CHUNK_BYTES", num_bytes)
        # Drop cached traces, which use the previous size.
        jax.clear_caches()

    yield set_to
    jax.clear_caches()


def _assert_both_equal_lax(x, kernel):
    """Compare both convolutions of stride 2."""
    _assert_same_function(
        lambda x, k: conv2d(x, k, stride=2),
        lambda x, k: _lax_conv(x, k, 2, "SAME"),
        x,
        kernel,
    )
    _assert_same_function(
        conv2d_transpose,
        lambda x, k: lax.conv_transpose(x, k, (2, 2), "SAME"),
        x,
        kernel,
    )


@pytest.mark.parametrize("batch", [6, 7])
def test_chunks_do_not_change_the_result(set_chunk, batch):
    set_chunk(20_000)
    _assert_both_equal_lax(_normal(batch, 8, 6, 4), _normal(4, 4, 4, 20))


@pytest.mark.parametrize("channels", CHANNELS)
def test_an_empty_batch_has_an_empty_result(channels):
    _assert_both_equal_lax(_normal(0, 6, 4, channels[0]), _normal(4, 4, *channels))


def test_memory_of_a_large_image_is_bounded():
    """The patches of these images are 1 GiB; the input is 64 MiB."""
    x = jax.ShapeDtypeStruct((16, 128, 128, 64), jnp.float32)
    kernel = jax.ShapeDtypeStruct((4, 4, 64, 64), jnp.float32)

    def loss(x, kernel):
        return jnp.sum(jnp.square(conv2d(x, kernel)))

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, kernel).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 512 * 2**20


@pytest.mark.parametrize("op", [conv2d, conv2d_transpose])
def test_bfloat16_rounds_only_inputs_and_output(op):
    x = jnp.asarray(_normal(2, 6, 6, 64), jnp.bfloat16)
    kernel = jnp.asarray(_normal(4, 4, 64, 16), jnp.bfloat16)
    y = jax.jit(op)(x, kernel)
    assert y.dtype == jnp.bfloat16
    exact = jax.jit(op)(x.astype(jnp.float32), kernel.astype(jnp.float32))
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=2**-8, atol=1e-6)
    gradients = jax.grad(lambda x, k: op(x, k).astype(jnp.float32).sum(), (0, 1))
    shapes = jax.eval_shape(gradients, x, kernel)
    assert {g.dtype for g in shapes} == {jnp.dtype(jnp.bfloat16)}


@pytest.fixture
def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def _loss(x, kernel):
    y = conv2d_transpose(conv2d(x, kernel, stride=2), kernel)
    return jnp.sum(jnp.square(y))


@pytest.fixture
def batch_and_kernel():
    return jnp.asarray(_normal(16, 6, 4, 3)), jnp.asarray(0.1 * _normal(4, 4, 3, 3))


@pytest.mark.parametrize("chunk_bytes", [convolution._CHUNK_BYTES, 1])
def test_sharded_jit_and_shard_map_agree_with_one_device(
    set_chunk, mesh, batch_and_kernel, chunk_bytes
):
    set_chunk(chunk_bytes)
    x, kernel = batch_and_kernel
    expected = jax.jit(jax.grad(_loss, argnums=1))(x, kernel)
    split, whole = PartitionSpec("data"), PartitionSpec()

    sharded = jax.jit(jax.grad(_loss, argnums=1))(
        jax.device_put(x, NamedSharding(mesh, split)),
        jax.device_put(kernel, NamedSharding(mesh, whole)),
    )
    np.testing.assert_allclose(sharded, expected, rtol=1e-4, atol=1e-4)

    def total(x, kernel):
        return lax.psum(_loss(x, kernel), "data")

    mapped = jax.shard_map(
        jax.grad(total, argnums=1), mesh=mesh, in_specs=(split, whole), out_specs=whole
    )
    np.testing.assert_allclose(
        jax.jit(mapped)(x, kernel), expected, rtol=1e-4, atol=1e-4
    )


def test_vmap_remat_and_forward_mode(batch_and_kernel):
    x, kernel = batch_and_kernel
    each = jax.jit(jax.vmap(jax.grad(jax.checkpoint(_loss)), in_axes=(0, None)))
    by_example = each(x[:, None], kernel)[:, 0]
    np.testing.assert_allclose(
        by_example, jax.jit(jax.grad(_loss))(x, kernel), rtol=1e-4, atol=1e-4
    )
    value, slope = jax.jit(jax.jvp, static_argnums=0)(
        _loss, (x, kernel), (x, jnp.zeros_like(kernel))
    )
    np.testing.assert_allclose(slope, 2 * value, rtol=1e-4)


def test_modules_hold_float32_parameters_and_compute_in_their_dtype():
    x = jnp.asarray(_normal(2, 6, 6, 3))
    for module in (Conv(5, (4, 4), stride=2), ConvTranspose(5)):
        bfloat = module.clone(dtype=jnp.bfloat16)
        params = jax.jit(bfloat.init)(jax.random.key(0), x)["params"]
        assert jax.tree.map(jnp.shape, params) == {"kernel": (4, 4, 3, 5), "bias": (5,)}
        assert {p.dtype for p in params.values()} == {jnp.dtype(jnp.float32)}
        params["bias"] = params["bias"] + 1.5
        y = jax.jit(module.apply)({"params": params}, x)
        op = conv2d_transpose if isinstance(module, ConvTranspose) else conv2d
        expected = jax.jit(op, static_argnames="stride")(x, params["kernel"], stride=2)
        np.testing.assert_allclose(y, expected + 1.5, atol=1e-6)
        low = jax.jit(bfloat.apply)({"params": params}, x)
        assert low.dtype == jnp.bfloat16
        np.testing.assert_allclose(low.astype(jnp.float32), y, atol=0.05)


@pytest.mark.parametrize(
    "module", [Conv(128, (3, 3)), ConvTranspose(128), ConvTranspose(128, (6, 6))]
)
def test_initial_variance_is_kept_through_a_relu(module):
    """The second moment after a ReLU equals that of the input (He et al., 2015)."""
    x = jax.random.normal(jax.random.key(0), (2, 12, 12, 128))
    y, _ = jax.jit(module.init_with_output)(jax.random.key(1), x)
    inner = y[:, 2:-2, 2:-2]
    assert 1.8 < float(jnp.mean(jnp.square(inner))) < 2.2


def test_invalid_arguments_are_reported():
    x = jnp.zeros((1, 2, 5, 3))
    with pytest.raises(UserError, match="smaller than the kernel"):
        conv2d(x, jnp.zeros((3, 3, 3, 4)), padding="VALID")
    with pytest.raises(UserError, match="positive"):
        conv2d(x, jnp.zeros((3, 3, 3, 4)), stride=0)
    with pytest.raises(UserError, match="stride divides"):
        conv2d_transpose(x, jnp.zeros((3, 3, 3, 4)))
