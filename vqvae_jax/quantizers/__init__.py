"""Vector quantization: pure functions on arrays that depend on JAX alone.

The symbols are the paper's (van den Oord et al., 2017, section 3): an encoder's output
z_e(x) is replaced by the nearest row e_k of a codebook. G codebooks quantize G
consecutive groups of D channels; G = 1 is the paper's plain case.

    codebook = init(key, num_codes=512, dim=64)
    out = quantize(codebook, z_e)                  # straight-through, with both losses
    codebook = ema_update(codebook, z_e, out.codes)   # appendix A.1, instead of a loss

Every function works under jit, vmap, grad, scan, pmap and shard_map. Derivatives
are in reverse mode: a row's place has a gradient of its own, so jvp does not pass.
Memory grows with N and K, not with their product: distances exist a tile at a time,
and rows are gathered. Sums by code, of the EMA and the gradient, take one-hot codes on
GPU and TPU while these have at most 1 GiB and K is at most 2048.

A codebook may be split over devices. Under jit, with its arrays sharded by rows and the
vectors over another axis of the mesh (`AxisType.Auto`), each device keeps and searches
rows of its own, and tells the others the smallest distance of each vector:

    rows = NamedSharding(mesh, PartitionSpec(None, "model"))
    codebook = jax.device_put(codebook, rows)
    z_e = jax.device_put(z_e, NamedSharding(mesh, PartitionSpec("data")))
    codebook = jax.jit(ema_update, out_shardings=rows)(codebook, z_e, codes)
"""

from vqvae_jax.quantizers.ema import (
    active_codes,
    count_update,
    ema_update,
    perplexity,
    usage,
)
from vqvae_jax.quantizers.kmeans import kmeans, restart
from vqvae_jax.quantizers.search import nearest
from vqvae_jax.quantizers.vq import (
    Codebook,
    Quantized,
    from_embeddings,
    init,
    lookup,
    quantize,
)

__all__ = [
    "Codebook",
    "Quantized",
    "active_codes",
    "count_update",
    "ema_update",
    "from_embeddings",
    "init",
    "kmeans",
    "lookup",
    "nearest",
    "perplexity",
    "quantize",
    "restart",
    "usage",
]
