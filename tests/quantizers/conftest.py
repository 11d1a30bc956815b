"""Small arrays of odd shapes, and NumPy's answers for them, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import quantizers
from vqvae_jax.quantizers import Codebook, search

G, K, D = 3, 7, 4
SHAPE = (2, 5, 3)


@pytest.fixture
def codebook() -> Codebook:
    """Three codebooks of seven rows of four numbers."""
    rng = np.random.default_rng(0)
    return quantizers.from_embeddings(
        jnp.asarray(rng.normal(size=(G, K, D)), "float32")
    )


@pytest.fixture
def z_e():
    """Vectors for them, `[2, 5, 3, 12]`."""
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(*SHAPE, G * D)), "float32")


@pytest.fixture
def mask():
    """About six of ten vectors, `[2, 5, 3]`."""
    return jnp.asarray(np.random.default_rng(2).random(SHAPE) < 0.6)


@pytest.fixture
def oracle_codes():
    """(embeddings, z_e) -> codes."""

    def codes(embeddings, z_e):
        """Squared distances one by one, in float64."""
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
        """Equations 6 to 8 with Python loops, in float64."""
        counts, sums = (
            np.array(x, np.float64) for x in (codebook.counts, codebook.sums)
        )
        n, z = np.zeros_like(counts), np.zeros_like(sums)
        vectors = np.asarray(z_e, np.float64).reshape(*codes.shape, -1)
        for place in np.ndindex(codes.shape[:-1]):
            if mask is not None and not mask[place]:
                continue
            for g in range(codes.shape[-1]):
                n[g, codes[(*place, g)]] += 1
                z[g, codes[(*place, g)]] += vectors[(*place, g)]
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


@pytest.fixture(params=["cpu", "elsewhere"])
def form(request, monkeypatch):
    """A CPU's search, and that of other platforms in its place."""
    if request.param == "elsewhere":
        monkeypatch.setattr(search, "_nearest_on_cpu", search._nearest_elsewhere)
    # What was traced before would be used again.
    jax.clear_caches()
    yield request.param
    jax.clear_caches()


@pytest.fixture
def set_tile(form, monkeypatch):
    """(codes, vectors): search so many at a time, in both forms."""

    def set_to(codes, vectors):
        tile = search._Tile(codes, bytes=4 * codes * vectors)
        for platform in ("_CPU_TILE", "_TILE"):
            monkeypatch.setattr(search, platform, tile)
        jax.clear_caches()

    return set_to
