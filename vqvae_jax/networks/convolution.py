"""2D convolutions, each in the form that runs fast on its platform.

XLA's convolution is fast on GPU and TPU. On CPU its forward pass is acceptable, but the
kernel gradient of a transposed convolution takes fifty times longer than the equivalent
matrix product. On CPU these functions therefore multiply patches by a matrix, whose
gradients are matrix products too. On GPU XLA would insert zeros between the inputs of a
transposed convolution and compute with them, stride² times the necessary work; there it
is written as several dense convolutions.
"""

import functools
import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from vqvae_jax.quantizers.primitives import for_platform
from vqvae_jax.runtime.errors import require

Pads = tuple[tuple[int, int], tuple[int, int]]
Padding = Literal["SAME", "VALID"] | Pads

# With fewer output columns than this, as for RGB, the matrix products of the single
# phases of a transposed convolution are too thin to be fast.
_NARROW = 64

# Chunks of patches of this size stay in a CPU's cache between the copy and the product:
# with 256 channels this is 1.3 to 1.7 times faster than one chunk, in a fourth of the
# memory.
_CHUNK_BYTES = 8 * 2**20


# Jitted, because outside of jit each call would trace and compile again.
@functools.partial(jax.jit, static_argnames=("stride", "padding"))
def conv2d(
    x: Float[Array, "B H W C_in"],
    kernel: Float[Array, "kh kw C_in C_out"],
    *,
    stride: int = 1,
    padding: Padding = "SAME",
) -> Float[Array, "B h w C_out"]:
    """Convolve images with a kernel, as `lax.conv_general_dilated` does.

    `padding` is "SAME", "VALID" or ((top, bottom), (left, right)). The result has the
    dtype of `x`; sums are accumulated in float32.

    Raises:
      UserError: the padded image is smaller than the kernel.
    """
    window = kernel.shape[:2]
    require(stride >= 1, f"stride {stride}: expected a positive integer")
    if isinstance(padding, str):
        pads = lax.padtype_to_pads(x.shape[1:3], window, (stride, stride), padding)
        padding = tuple(tuple(pair) for pair in pads)
    for size, extent, pair in zip(x.shape[1:3], window, padding, strict=True):
        require(
            size + sum(pair) >= extent,
            f"an image side of {size} padded by {pair} is smaller than the kernel's "
            f"{extent}: use larger images or fewer strided layers",
        )
    return for_platform(
        x,
        kernel.astype(x.dtype),
        cpu=functools.partial(_conv_as_products, stride=stride, pads=padding),
        default=functools.partial(_conv_by_xla, stride=stride, pads=padding),
    )


@functools.partial(jax.jit, static_argnames="stride")
def conv2d_transpose(
    x: Float[Array, "B H W C_in"],
    kernel: Float[Array, "kh kw C_in C_out"],
    *,
    stride: int = 2,
) -> Float[Array, "B h w C_out"]:
    """Upsample images `stride` times, as `lax.conv_transpose` with "SAME" does.

    The result [B, stride * H, stride * W, C_out] has the dtype of `x`; sums are
    accumulated in float32. On CPU and GPU this is a sub-pixel convolution (Shi et al.,
    2016): each of the stride² output phases is a small dense convolution.

    Raises:
      UserError: `stride` does not divide both sides of the kernel.
    """
    require(stride >= 1, f"stride {stride}: expected a positive integer")
    require(
        all(extent % stride == 0 for extent in kernel.shape[:2]),
        f"a transposed convolution needs kernel sides that its stride divides, got "
        f"{kernel.shape[0]}x{kernel.shape[1]} with stride {stride}",
    )
    return for_platform(
        x,
        kernel.astype(x.dtype),
        cpu=functools.partial(_transpose_as_products, stride=stride),
        tpu=functools.partial(_transpose_by_xla, stride=stride),
        default=functools.partial(
            _transpose_by_phases, stride=stride, convolve=_pad_and_convolve
        ),
    )


def _conv_by_xla(x, kernel, *, stride, pads):
    if x.shape[1:3] == kernel.shape[:2] and pads == ((0, 0), (0, 0)):
        # A single output position, as when sampling cell by cell, is a matrix product.
        matrix = kernel.reshape(-1, kernel.shape[-1])
        y = x.reshape(x.shape[0], matrix.shape[0]) @ matrix
        return y[:, None, None, :]
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _pad_and_convolve(x, kernel, *, stride, pads):
    # cuDNN has no one-sided padding: XLA would pad both sides and slice one off.
    return _conv_by_xla(
        jnp.pad(x, ((0, 0), *pads, (0, 0))),
        kernel,
        stride=stride,
        pads=((0, 0), (0, 0)),
    )


def _transpose_by_xla(x, kernel, *, stride):
    return lax.conv_transpose(x, kernel, (stride, stride), "SAME")


def _conv_as_products(x, kernel, *, stride, pads):
    form = functools.partial(_patches_times_matrix, stride=stride, pads=pads)
    output_sides = [
        (size + sum(pair) - extent) // stride + 1
        for size, pair, extent in zip(x.shape[1:3], pads, kernel.shape, strict=False)
    ]
    floats = math.prod(output_sides) * math.prod(kernel.shape[:3])
    return _in_chunks(form, x, kernel, floats_per_image=floats)


def _transpose_as_products(x, kernel, *, stride):
    narrow = kernel.shape[3] * stride**2 < _NARROW
    form = functools.partial(_transpose_by_taps, stride=stride)
    if not narrow:
        form = functools.partial(
            _transpose_by_phases, stride=stride, convolve=_patches_times_matrix
        )
    channels = kernel.shape[3] if narrow else x.shape[3]
    floats = math.prod(x.shape[1:3]) * math.prod(kernel.shape[:2]) * channels
    return _in_chunks(form, x, kernel, floats_per_image=floats)


def _in_chunks(form, x, kernel, *, floats_per_image):
    """Apply `form` in float32 to chunks of images whose patches fit into the cache.

    Use float32 for bfloat16 inputs too: current CPUs do not multiply bfloat16 faster.
    """

    # Recompute the patches in the backward pass: they are kh * kw copies of the input,
    # too large to keep from the forward pass.
    @jax.checkpoint
    def convolve(images):
        y = form(images.astype(jnp.float32), kernel.astype(jnp.float32))
        return y.astype(x.dtype)

    batch = x.shape[0]
    limit = max(1, _CHUNK_BYTES // (4 * floats_per_image))
    size = max(
        (d for d in range(1, min(batch, limit) + 1) if batch % d == 0), default=0
    )
    if size == batch:
        return convolve(x)
    # A chunk takes images i, i + n, i + 2n, ..., so a batch sharded over devices stays
    # sharded inside each chunk.
    chunks = x.reshape(size, batch // size, *x.shape[1:]).swapaxes(0, 1)
    y = lax.map(convolve, chunks).swapaxes(0, 1)
    return y.reshape(batch, *y.shape[2:])


def _patches_times_matrix(x, kernel, *, stride, pads):
    kh, kw, _, c_out = kernel.shape
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    batch, height, width, _ = x.shape
    h, w = (height - kh) // stride + 1, (width - kw) // stride + 1
    last_row, last_column = stride * (h - 1) + 1, stride * (w - 1) + 1
    patches = jnp.concatenate(
        [
            x[:, i : i + last_row : stride, j : j + last_column : stride]
            for i in range(kh)
            for j in range(kw)
        ],
        axis=-1,
    )
    # Use 2D operands: XLA would transpose operands that contract three dimensions, as
    # the kernel's gradient does.
    matrix = kernel.reshape(-1, c_out)
    y = patches.reshape(batch * h * w, matrix.shape[0]) @ matrix
    return y.reshape(batch, h, w, c_out)


# lax.conv_transpose computes y[o] = sum over u of K[u] x[(o + u - lead) / stride], over
# the u for which stride divides o + u - lead.
def _lead(extent: int, stride: int) -> int:
    return extent - 1 if stride >= extent else (extent + stride - 1) // 2


def _transpose_by_phases(x, kernel, *, stride, convolve):
    """Compute each phase o % stride of the result as a dense convolution."""
    batch, height, width, _ = x.shape

    def phase(extent: int, remainder: int):
        first = (_lead(extent, stride) - remainder) % stride
        before = (_lead(extent, stride) - remainder - first) // stride
        return first, (before, extent // stride - 1 - before)

    def compute(row, column):
        (u, above), (v, left) = row, column
        return convolve(x, kernel[u::stride, v::stride], stride=1, pads=(above, left))

    rows = [phase(kernel.shape[0], remainder) for remainder in range(stride)]
    columns = [phase(kernel.shape[1], remainder) for remainder in range(stride)]
    phases = [
        jnp.stack([compute(row, column) for column in columns], axis=3) for row in rows
    ]
    y = jnp.stack(phases, axis=2)
    return y.reshape(batch, stride * height, stride * width, kernel.shape[3])


def _transpose_by_taps(x, kernel, *, stride):
    """Multiply once by all taps side by side, then shift and sum the products."""
    batch, height, width, c_in = x.shape
    kh, kw, _, c_out = kernel.shape
    matrix = kernel.transpose(2, 0, 1, 3).reshape(c_in, kh * kw * c_out)
    products = (x.reshape(-1, c_in) @ matrix).reshape(
        batch, height, width, kh, kw, c_out
    )

    def shift(extent: int, tap: int):
        low = _lead(extent, stride) - tap
        return low, stride - 1 - low, stride - 1

    zero = jnp.zeros((), products.dtype)
    unpadded = (0, 0, 0)
    shifted = [
        lax.pad(
            products[:, :, :, u, v],
            zero,
            (unpadded, shift(kh, u), shift(kw, v), unpadded),
        )
        for u in range(kh)
        for v in range(kw)
    ]
    return sum(shifted[1:], shifted[0])


class Conv(nn.Module):
    """Convolve [B, H, W, C_in] to [B, h, w, features] and add a bias.

    Parameters are float32: `kernel` [kh, kw, C_in, features], initialized by
    `kernel_init` with fan-in kh * kw * C_in, and `bias` [features], zeros. The module
    computes in `dtype`, which is also the dtype of the result.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    stride: int = 1
    padding: Padding = "SAME"
    dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C_in"], *, padding: Padding | None = None
    ) -> Float[Array, "B h w C_out"]:
        """Convolve; `padding` overrides the module's attribute."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param(
            "bias", nn.initializers.zeros_init(), (self.features,), jnp.float32
        )
        y = conv2d(
            x.astype(self.dtype),
            kernel,
            stride=self.stride,
            padding=self.padding if padding is None else padding,
        )
        return y + bias.astype(self.dtype)[None, None, None, :]


class ConvTranspose(nn.Module):
    """Upsample [B, H, W, C_in] to [B, stride * H, stride * W, features], add a bias.

    Parameters are float32: `kernel` [kh, kw, C_in, features] and `bias` [features],
    zeros. Each output sums over kh * kw / stride² taps of the kernel, so `kernel_init`
    uses fan-in kh * kw * C_in / stride². The module computes in `dtype`, which is also
    the dtype of the result.
    """

    features: int
    kernel_size: tuple[int, int] = (4, 4)
    stride: int = 2
    dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C_in"]) -> Float[Array, "B h w C_out"]:
        shape = (*self.kernel_size, x.shape[-1], self.features)

        def init(key, shape, dtype):
            return self.stride * self.kernel_init(key, shape, dtype)

        kernel = self.param("kernel", init, shape, jnp.float32)
        bias = self.param(
            "bias", nn.initializers.zeros_init(), (self.features,), jnp.float32
        )
        y = conv2d_transpose(x.astype(self.dtype), kernel, stride=self.stride)
        return y + bias.astype(self.dtype)[None, None, None, :]
