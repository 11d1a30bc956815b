"""Action-conditional video in the space of codes (section 4.4), on first-person frames.

The VQ-VAE is that of experiments/maze.py; a model of clips of its codes follows. Six
frames of a test clip are given and ten are drawn, under each action and under the
recorded ones.

Variants:
  (none)                 the full sizes.
  without_actions        the same, without conditioning on actions.
  small                  sizes and steps for a CPU.
  small_without_actions  both.
"""

from vqvae_jax.experiments import base, maze

VIDEO = (
    maze.FRAMES
    | base.change("video.context", "video.pixelcnn", dropout=0.1, dtype="bfloat16")
    | {
        "video.context.channels": 192,
        "video.context.kernel_size": 5,
        "video.pixelcnn.layers": 10,
        "video_training.steps": 30_000,
        "video_training.batch_size": 16,
        "video_training.learning_rate": 3e-4,
        "video_training.schedule": "cosine",
        "video_training.warmup_steps": 500,
        "video_training.gradient_clip": 1.0,
        "video_training.params_ema_decay": 0.999,
        # Clips; each is drawn once per action and once with the recorded actions.
        "samples.num_samples": 64,
        "samples.batch_size": 32,
        "evaluation.batch_size": 40,
    }
)
# Fewer channels and steps.
SMALL = (
    maze.SMALL_FRAMES
    | base.change(
        "video.context",
        "video.pixelcnn",
        layers=3,
        channels=48,
        kernel_size=3,
        dropout=0.0,
        dtype="float32",
    )
    | {
        "video_training.steps": 300,
        "video_training.batch_size": 2,
        "video_training.learning_rate": 4e-3,
        "video_training.warmup_steps": 20,
        "video_training.params_ema_decay": 0.98,
        "video_training.log_every": 20,
        "video_training.checkpoint_every": 100,
        "samples.num_samples": 16,
        "samples.batch_size": 8,
        "samples.temperature": 0.9,
        "evaluation.batch_size": 16,
    }
)
WITHOUT_ACTIONS = {"video.actions": False}

VARIANTS = {
    "": base.Variant("vqvae", "video", VIDEO),
    "without_actions": base.Variant("vqvae", "video", VIDEO | WITHOUT_ACTIONS),
    "small": base.Variant("vqvae", "video", VIDEO | SMALL),
    "small_without_actions": base.Variant(
        "vqvae", "video", VIDEO | SMALL | WITHOUT_ACTIONS
    ),
}
get_config = base.variants(__file__, VARIANTS)
