"""Quantizers behind one protocol: pure functions of JAX arrays.

    vq = quantizers.VQ(num_codes=512, dim=64)        # sizes and options, no arrays
    state = vq.init(key, z_e)                        # a pytree of arrays
    out = vq.quantize(state, z_e)                    # z_q, codes, losses
    z_q = vq.lookup(state, out.codes)                # equals out.z_q to the last bit
    state = vq.update(state, z_e, out.codes, key=key)  # after the gradient step

Symbols are the paper's (section 3): an encoder's output z_e(x) is replaced by z_q(x).
Every method works under jit, vmap, grad, scan, pmap and shard_map; inside of the last
two, `init` does not share its data between devices. The only imports are jax and
jaxtyping. `quantizers.linen` and `quantizers.nnx` wrap any member as a Flax module.

Gradients are reverse mode only: a row's gather has its own rule, so jvp raises. Memory
grows with N and K, not with their product, except for `GumbelSoftmax`: distances are
computed a tile at a time, and rows are gathered. Sums by code, of the EMA and the
gradient, use one-hot codes on GPU and TPU where these fit into 1 GiB and K is at most
2048.

A codebook may be split over devices. Under jit, with its arrays sharded by rows and the
vectors over another axis of the mesh (`AxisType.Auto`), each device keeps and searches
its own rows, and only the smallest distance of each vector is communicated:

    rows = NamedSharding(mesh, PartitionSpec(None, "model"))
    state = jax.device_put(state, rows)
    z_e = jax.device_put(z_e, NamedSharding(mesh, PartitionSpec("data")))
    state = jax.jit(vq.update, out_shardings=rows)(state, z_e, codes, key=key)
"""

from vqvae_jax.quantizers.base import MEMBERS, Quantized, Quantizer
from vqvae_jax.quantizers.codebook import Codebook, from_embeddings, gather_rows
from vqvae_jax.quantizers.ema import active_codes, perplexity, usage
from vqvae_jax.quantizers.fsq import FSQ
from vqvae_jax.quantizers.gumbel import GumbelSoftmax
from vqvae_jax.quantizers.kmeans import kmeans, restart
from vqvae_jax.quantizers.lfq import BSQ, LFQ, BinaryState
from vqvae_jax.quantizers.projected import Projected, ProjectedState
from vqvae_jax.quantizers.projection import Projection
from vqvae_jax.quantizers.random_projection import RandomProjection
from vqvae_jax.quantizers.residual import Residual
from vqvae_jax.quantizers.search import nearest
from vqvae_jax.quantizers.simvq import SimVQ
from vqvae_jax.quantizers.vq import VQ

MEMBERS.update(
    {
        "vq": VQ,
        "residual": Residual,
        "fsq": FSQ,
        "lfq": LFQ,
        "bsq": BSQ,
        "simvq": SimVQ,
        "gumbel": GumbelSoftmax,
        "projected": Projected,
        "random_projection": RandomProjection,
    }
)

__all__ = [
    "BSQ",
    "FSQ",
    "LFQ",
    "MEMBERS",
    "VQ",
    "BinaryState",
    "Codebook",
    "GumbelSoftmax",
    "Projected",
    "ProjectedState",
    "Projection",
    "Quantized",
    "Quantizer",
    "RandomProjection",
    "Residual",
    "SimVQ",
    "active_codes",
    "from_embeddings",
    "gather_rows",
    "kmeans",
    "nearest",
    "perplexity",
    "restart",
    "usage",
]
