"""Which quantizer works: the same networks, budget and bits with each in turn.

For K = 512, 2 048 and 16 384, three seeds each: bits/dim with the uniform and a learned
prior, PSNR, codes in use, time and memory of the quantizer's part of a step. Each has
log2 K bits for a vector, as one code or as several.

Variants:
  (none)       scikit-learn's digits, 600 + 200 steps: minutes for each size on a CPU.
  cifar_small  CIFAR-10 with cifar.py:small's networks, a few hours on a CPU.
  cifar        CIFAR-10 with cifar.py:fast's networks and steps, for a GPU.
"""

EMA = {"codebook_update": "ema", "dead_code_threshold": 0.1}
# One code of K values.
ALL = {
    "vq": {"kind": "vq"},
    "vq_ema": {"kind": "vq", **EMA},
    "vq_ema_cosine": {"kind": "vq", "distance": "cosine", **EMA},
    "vq_ema_rotation": {"kind": "vq", "estimator": "rotation", **EMA},
    "simvq": {"kind": "simvq"},
    "gumbel_softmax": {"kind": "gumbel_softmax"},
}
