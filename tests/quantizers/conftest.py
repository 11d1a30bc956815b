"""Small instances of every quantizer, small arrays, and oracles in float64 NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import quantizers
from vqvae_jax.quantizers import (
    BSQ,
    FSQ,
    LFQ,
    VQ,
    Codebook,
    GumbelSoftmax,
    Projected,
    RandomProjection,
    Residual,
    SimVQ,
    search,
)

G, K, D = 3, 7, 4
SHAPE = (2, 5, 3)

# The contract tests run over these. Every row of `quantizers.MEMBERS` needs at least
# one, and so does every option that changes how a member computes.
INSTANCES: dict[str, quantizers.Quantizer] = {
    "vq": VQ(num_codes=K, dim=D, num_codebooks=G),
    "vq-ema": VQ(
        num_codes=5,
        dim=6,
        codebook_update="ema",
        ema_decay=0.9,
        codebook_init="uniform",
    ),
    "vq-restart": VQ(
        num_codes=K,
        dim=D,
        num_codebooks=G,
        codebook_update="ema",
        ema_decay=0.9,
        dead_code_threshold=1.0,
    ),
    "vq-rotation": VQ(
        num_codes=K,
        dim=D,
        num_codebooks=G,
        estimator="rotation",
        orthogonality_weight=0.5,
    ),
    "vq-cosine": VQ(
        num_codes=K,
        dim=D,
        num_codebooks=G,
        distance="cosine",
        codebook_update="gradient",
        codebook_init="uniform",
        entropy_weight=0.5,
        entropy_temperature=0.5,
    ),
    "vq-cosine-ema": VQ(
        num_codes=5,
        dim=6,
        distance="cosine",
        estimator="rotation",
        codebook_update="ema",
        ema_decay=0.9,
        dead_code_threshold=1.0,
    ),
    "vq-diveq": VQ(
        num_codes=5,
        dim=6,
        num_codebooks=2,
        estimator="diveq",
        codebook_update="gradient",
    ),
    "fsq": FSQ(levels=(5, 4, 2), dim=6),
    # A map of one number is no matrix product, and rounds differently.
    "fsq-one": FSQ(levels=(7,), dim=1),
    "fsq-digits": FSQ(levels=(7, 2, 6), dim=4, codes="digits"),
    "lfq": LFQ(bits=5, dim=6),
    "bsq": BSQ(bits=4, dim=4, temperature=0.5),
    "projected": Projected(
        quantizer=VQ(num_codes=K, dim=3, codebook_update="ema", ema_decay=0.9),
        dim=6,
    ),
    "residual": Residual(
        quantizer=VQ(num_codes=K, dim=D), levels=3, level_dropout=0.5, num_groups=2
    ),
    "residual-ema-shared": Residual(
        quantizer=VQ(
            num_codes=K,
            dim=D,
            codebook_update="ema",
            ema_decay=0.9,
            dead_code_threshold=1.0,
        ),
        levels=2,
        shared=True,
    ),
    "residual-gumbel": Residual(quantizer=GumbelSoftmax(num_codes=5, dim=6), levels=2),
    "simvq": SimVQ(num_codes=K, dim=D),
    "gumbel": GumbelSoftmax(num_codes=K, dim=D, temperature=0.5, kl_weight=0.1),
    "random-projection": RandomProjection(num_codes=K, dim=6, code_dim=3),
}
# Further options of members that others test already.
SLOW = frozenset(
    {
        *("vq-cosine-ema", "vq-diveq", "fsq-one", "fsq-digits"),
        *("residual-ema-shared", "residual-gumbel"),
    }
)
# Terms of a vector that depend on the other vectors of the call.
TERMS_OF_THE_BATCH = frozenset({"entropy"})
# Instances whose z_q passes its gradient to z_e unchanged, and nothing to the state.
STRAIGHT_THROUGH = frozenset(INSTANCES) - {
    *(
        "fsq",
        "fsq-one",
        "fsq-digits",
        "lfq",
        "bsq",
        "projected",
        "gumbel",
        "residual-gumbel",
    ),
    *("vq-rotation", "vq-cosine", "vq-cosine-ema", "vq-diveq"),
}
# Instances whose codes have different numbers of values, the `levels`.
UNEQUAL_CODES = frozenset({"fsq-digits"})
# Leaves of a state by the last part of their name: of maps from z_e, which belong to
# the encoder, and those that nothing moves.
ENCODER_LEAVES = frozenset({"logit_weights", "logit_bias", "into", "into_bias"})
FROZEN_LEAVES = frozenset({"base", "projection", "codebook"})


def _split_by_name(state, names):
    """Return the leaves with these names, and the others."""
    named, others = [], []
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        # The value of an NNX variable is a leaf inside of it.
        name = name.removesuffix(".value").rpartition(".")[2]
        (named if name in names else others).append(leaf)
    return named, others


@pytest.fixture(scope="session")
def instances():
    """The table of instances, by name."""
    return INSTANCES


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in INSTANCES
    ],
)
def quantizer_name(request):
    """The name of each instance in turn."""
    return request.param


@pytest.fixture(scope="module")
def quantizer(quantizer_name):
    """Each instance in turn."""
    return INSTANCES[quantizer_name]


@pytest.fixture(scope="session")
def is_straight_through():
    """Return whether the instance of a name passes gradients unchanged."""
    return STRAIGHT_THROUGH.__contains__


@pytest.fixture(scope="session")
def encoder_leaves():
    """state -> its leaves that belong to the encoder, and the others."""
    return functools.partial(_split_by_name, names=ENCODER_LEAVES)


@pytest.fixture(scope="session")
def frozen_leaves():
    """state -> its leaves that nothing moves, and the others."""
    return functools.partial(_split_by_name, names=FROZEN_LEAVES)


@pytest.fixture(scope="session")
def of_each_vector():
    """(out) -> what depends on each vector alone, not on the others of the call."""

    def select(out):
        of_the_batch = TERMS_OF_THE_BATCH & {*out.losses}
        losses = {k: v for k, v in out.losses.items() if k not in of_the_batch}
        return out.z_q, out.codes, losses, None if of_the_batch else out.loss

    return select


@pytest.fixture
def has_unequal_codes(quantizer_name):
    """Whether the codes of a vector have different numbers of values."""
    return quantizer_name in UNEQUAL_CODES


@pytest.fixture(scope="session")
def identity():
    """(width) -> the projection that changes nothing."""

    def projection(width):
        eye, zeros = jnp.eye(width), jnp.zeros(width)
        return quantizers.Projection(eye, zeros, eye, zeros)

    return projection


@pytest.fixture
def vq():
    """A VQ of the sizes of `codebook`, trained by the codebook loss."""
    return VQ(num_codes=K, dim=D, num_codebooks=G, codebook_init="uniform")


@pytest.fixture
def codebook() -> Codebook:
    """Three codebooks of seven rows of four features."""
    rng = np.random.default_rng(0)
    return quantizers.from_embeddings(
        jnp.asarray(rng.normal(size=(G, K, D)), "float32")
    )


@pytest.fixture
def z_e():
    """Vectors for `codebook`, `[2, 5, 3, 12]`."""
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(*SHAPE, G * D)), "float32")


@pytest.fixture
def mask():
    """A mask of `z_e`, `[2, 5, 3]`, True for about six vectors in ten."""
    return jnp.asarray(np.random.default_rng(2).random(SHAPE) < 0.6)


@pytest.fixture
def oracle_codes():
    """(embeddings, z_e) -> codes."""

    def codes(embeddings, z_e):
        """Compute each squared distance, in float64."""
        e = np.asarray(embeddings, np.float64)
        z = np.asarray(z_e, np.float64).reshape(*z_e.shape[:-1], len(e), -1)
        distances = ((z[..., None, :] - e) ** 2).sum(-1)
        return distances.argmin(-1)

    return codes


@pytest.fixture
def oracle_rows():
    """(embeddings, codes) -> rows `[..., G, D]`."""

    def rows(embeddings, codes):
        e = np.asarray(embeddings, np.float64)
        return np.stack([e[g][codes[..., g]] for g in range(len(e))], axis=-2)

    return rows


@pytest.fixture
def oracle_ema():
    """(codebook, z_e, codes, decay, mask) -> embeddings, counts and sums."""

    def ema(codebook, z_e, codes, decay, mask=None):
        """Compute equations 6 to 8 with Python loops, in float64."""
        counts, sums = (
            np.array(x, np.float64) for x in (codebook.counts, codebook.sums)
        )
        n, z = np.zeros_like(counts), np.zeros_like(sums)
        vectors = np.asarray(z_e, np.float64).reshape(*codes.shape, -1)
        for index in np.ndindex(codes.shape[:-1]):
            if mask is not None and not mask[index]:
                continue
            for g in range(codes.shape[-1]):
                n[g, codes[(*index, g)]] += 1
                z[g, codes[(*index, g)]] += vectors[(*index, g)]
        counts = decay * counts + (1 - decay) * n
        sums = decay * sums + (1 - decay) * z
        return sums / counts[..., None], counts, sums

    return ema


@pytest.fixture
def assert_codebooks_close():
    """(actual, expected, tolerance): compare embeddings, counts and sums."""

    def check(actual, expected, tolerance=1e-5):
        for a, b in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)

    return check


@pytest.fixture(params=["cpu", "accelerator"])
def platform(request, monkeypatch):
    """The search of CPUs, then that of accelerators, both run on this CPU."""
    if request.param == "accelerator":
        monkeypatch.setattr(search, "_search_on_cpu", search._search_on_accelerator)
    # Programs compiled before the patch would be reused.
    jax.clear_caches()
    yield request.param
    jax.clear_caches()


@pytest.fixture
def set_tile(platform, monkeypatch):
    """(codes, vectors): set the size of a tile, on both platforms."""

    def set_to(codes, vectors):
        tile = search._Tile(codes, bytes=4 * codes * vectors)
        for name in ("_CPU_TILE", "_TILE"):
            monkeypatch.setattr(search, name, tile)
        jax.clear_caches()

    return set_to
