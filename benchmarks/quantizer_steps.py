"""Training steps of quantizers (forward, backward, update), here and in two peers.

Each function takes the number of vectors N and their dimension D, and returns a
function that quantizes N random vectors, computes the gradient of mean(z_q^2) plus the
quantizer's loss, and updates what the gradient does not. Those of the EMA codebook take
the number of codes K too; its gradient is with respect to the vectors alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from vqvae_jax import quantizers

BETA, DECAY = 0.25, 0.99


class Member(NamedTuple):
    """A quantizer and its peer.

    ours: D -> this project's quantizer.
    peer: D -> the name and the arguments of vector-quantize-pytorch's module.
    speed_goal: time of the peer / ours, at least.
    """

    ours: Callable[[int], quantizers.Quantizer]
    peer: Callable[[int], tuple[str, dict[str, Any]]]
    speed_goal: float = 1.0


def _vq(speed_goal: float = 3.0, *, num_codes: int = 512, peer: dict, **ours: Any):
    """Return a VQ with an EMA, unless `ours` says otherwise, and its peer."""
    options = {"codebook_update": "ema", "ema_decay": DECAY, "beta": BETA} | ours
    common = {"codebook_size": num_codes, "decay": DECAY, "commitment_weight": BETA}
    return Member(
        lambda dim: quantizers.VQ(
            num_codes=num_codes,
            dim=dim // options.get("num_codebooks", 1),
            codebook_init="uniform",
            **options,
        ),
        lambda dim: (
            "VectorQuantize",
            common | {"dim": dim, "rotation_trick": False} | peer,
        ),
        speed_goal,
    )


def _inner(dim: int) -> quantizers.VQ:
    return quantizers.VQ(
        num_codes=512,
        dim=dim,
        codebook_update="ema",
        ema_decay=DECAY,
        codebook_init="uniform",
    )


_RESIDUAL = {"num_quantizers": 4, "codebook_size": 512, "rotation_trick": False}
# All but the EMA codebook, with K = 512 or nine bits a code.
MEMBERS: dict[str, Member] = {
    "vq": _vq(
        codebook_update="loss", peer={"learnable_codebook": True, "ema_update": False}
    ),
    "vq_cosine": _vq(distance="cosine", peer={"use_cosine_sim": True}),
    "vq_rotation": _vq(estimator="rotation", peer={"rotation_trick": True}),
    "vq_product": _vq(
        num_codebooks=4,
        peer={"heads": 4, "codebook_dim": 16, "separate_codebook_per_head": True},
    ),
    "projected": Member(
        lambda dim: quantizers.Projected(quantizer=_inner(8), dim=dim),
        lambda dim: (
            "VectorQuantize",
            {"dim": dim, "codebook_size": 512, "codebook_dim": 8, "decay": DECAY}
            | {"rotation_trick": False},
        ),
        3.0,
    ),
    "residual": Member(
        lambda dim: quantizers.Residual(quantizer=_inner(dim), levels=4),
        lambda dim: ("ResidualVQ", {"dim": dim, "decay": DECAY} | _RESIDUAL),
        3.0,
    ),
    "residual_grouped": Member(
        lambda dim: quantizers.Residual(
            quantizer=_inner(dim // 2), levels=4, num_groups=2
        ),
        lambda dim: (
            "GroupedResidualVQ",
            {"dim": dim, "groups": 2, "decay": DECAY} | _RESIDUAL,
        ),
        3.0,
    ),
    "simvq": Member(
        lambda dim: quantizers.SimVQ(num_codes=512, dim=dim),
        lambda dim: (
            "SimVQ",
            {"dim": dim, "codebook_size": 512, "rotation_trick": False},
        ),
        3.0,
    ),
    "fsq": Member(
        lambda dim: quantizers.FSQ(levels=(8, 8, 8), dim=dim),
        lambda dim: ("FSQ", {"levels": [8, 8, 8], "dim": dim}),
    ),
    # As in the peer, all levels have one projection to three numbers and back.
    "residual_fsq": Member(
        lambda dim: quantizers.Projected(
            quantizer=quantizers.Residual(
                quantizer=quantizers.FSQ(levels=(8, 8, 8), dim=3), levels=4
            ),
            dim=dim,
        ),
        lambda dim: (
            "ResidualFSQ",
            {"levels": [8, 8, 8], "num_quantizers": 4, "dim": dim},
        ),
    ),
    "lfq": Member(
        lambda dim: quantizers.LFQ(bits=9, dim=dim),
        lambda dim: ("LFQ", {"codebook_size": 512, "dim": dim}),
    ),
    "bsq": Member(
        lambda dim: quantizers.BSQ(bits=9, dim=dim),
        lambda dim: ("LFQ", {"codebook_size": 512, "dim": dim, "spherical": True}),
    ),
    # The peer gives codes only: its step is the forward pass.
    "random_projection": Member(
        lambda dim: quantizers.RandomProjection(num_codes=512, dim=dim, code_dim=16),
        lambda dim: (
            "RandomProjectionQuantizer",
            {"dim": dim, "codebook_size": 512, "codebook_dim": 16},
        ),
    ),
}


def vectors(num_vectors: int, dim: int) -> np.ndarray:
    """Draw the vectors to quantize."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((num_vectors, dim), np.float32)


def ours(num_vectors: int, num_codes: int, dim: int) -> timing.Run:
    """Return this project's step."""
    vq = quantizers.VQ(
        num_codes=num_codes, dim=dim, codebook_update="ema", ema_decay=DECAY
    )
    key, shape = jax.random.key(0), (1, num_codes, dim)
    codebook = quantizers.from_embeddings(jax.random.normal(key, shape))

    def step(codebook, z_e):
        def loss(z_e):
            out = vq.quantize(codebook, z_e)
            commitment = BETA * out.losses["commitment"].mean()
            return jnp.square(out.z_q).mean() + commitment, out.codes

        gradient, codes = jax.grad(loss, has_aux=True)(z_e)
        return gradient, vq.update(codebook, z_e, codes, key=key)

    return _compiled(step, codebook, vectors(num_vectors, dim))


def of_haiku(num_vectors: int, num_codes: int, dim: int) -> timing.Run:
    """Return dm-haiku's step."""
    import haiku as hk

    def apply(z_e):
        layer = hk.nets.VectorQuantizerEMA(dim, num_codes, BETA, DECAY)
        return layer(z_e, is_training=True)

    network = hk.transform_with_state(apply)
    z_e = vectors(num_vectors, dim)
    # One vector suffices: the size of the state does not depend on the batch.
    _, state = jax.jit(network.init)(jax.random.key(0), z_e[:1])

    def step(state, z_e):
        def loss(z_e):
            out, new = network.apply({}, state, None, z_e)
            return jnp.square(out["quantize"]).mean() + out["loss"], new

        return jax.grad(loss, has_aux=True)(z_e)

    return _compiled(step, state, z_e)


def of_torch(num_vectors: int, num_codes: int, dim: int) -> timing.Run:
    """Return vector-quantize-pytorch's step, on a GPU if available."""
    import torch
    from vector_quantize_pytorch import VectorQuantize

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layer = VectorQuantize(
        dim=dim, codebook_size=num_codes, decay=DECAY, commitment_weight=BETA
    ).to(device)
    z_e = torch.from_numpy(vectors(num_vectors, dim)).to(device)[None]
    z_e.requires_grad_()

    def step():
        z_e.grad = None
        quantized, _, commitment = layer(z_e)
        (quantized.square().mean() + commitment.sum()).backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def our_member(member: str, num_vectors: int, dim: int) -> timing.Run:
    """Return the step of one of this project's quantizers."""
    quantizer = MEMBERS[member].ours(dim)
    key = jax.random.key(0)
    state = quantizer.init(key)

    def step(state, z_e):
        def loss(state, z_e):
            out = quantizer.quantize(state, z_e, key=key)
            return jnp.square(out.z_q).mean() + out.loss.mean(), out.codes

        gradients, codes = jax.grad(loss, (0, 1), has_aux=True)(state, z_e)
        return gradients, quantizer.update(state, z_e, codes, key=key)

    return _compiled(step, state, vectors(num_vectors, dim))


def member_of_torch(member: str, num_vectors: int, dim: int) -> timing.Run:
    """Return the step of the peer in vector-quantize-pytorch, on a GPU if available."""
    import torch
    import vector_quantize_pytorch

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name, options = MEMBERS[member].peer(dim)
    layer = getattr(vector_quantize_pytorch, name)(**options).to(device)
    z_e = torch.from_numpy(vectors(num_vectors, dim)).to(device)[None]
    z_e.requires_grad_()

    def step():
        z_e.grad = None
        layer.zero_grad()
        out = layer(z_e)
        # Of codes alone there is no gradient.
        if isinstance(out, tuple):
            quantized, _, *losses = out
            loss = quantized.square().mean() + sum(each.sum() for each in losses)
            loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def _compiled(step: Any, *inputs: Any) -> timing.Run:
    inputs = jax.device_put(inputs)
    compiled = jax.jit(step).lower(*inputs).compile()
    return timing.waits(compiled, *inputs)
