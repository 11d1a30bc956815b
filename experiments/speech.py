"""Speech (section 4.3): codes of a waveform, and a WaveNet that decodes them.

eSpeak NG synthesises the speech, as VCTK is not available everywhere: nothing to
download, and the times of the phones are known.

Variants:
  (none)         K = 512, a code per 64 samples (250 per second), 36 speakers: the
                 decoder is conditioned on the speaker, so that codes of one speaker
                 can be decoded in another's voice.
  phonemes       K = 128, a code per 640 samples (25 per second): are codes phonemes?
  unconditional  a code per 128 samples, and a prior over windows of 320 codes, 2.6 s:
                 speech that no recording gives.
  small, phonemes_small, unconditional_small
                 sizes, speakers and steps for a CPU.
"""

from vqvae_jax.experiments import base

SPEECH = base.change("model.encoder", "model.decoder", dtype="bfloat16") | {
    # Crops are 0.48 s by default, a multiple of all downsamplings.
    "data.name": "speech/english",
    "model.quantizer.codebook_update": "ema",
    "model.quantizer.dead_code_threshold": 0.5,
    "model.decoder.stacks": 3,
    "model.decoder.channels": 128,
    "training.steps": 200_000,
    "training.batch_size": 32,
    "training.learning_rate": 3e-4,
    "training.schedule": "cosine",
    "training.warmup_steps": 1000,
    "training.gradient_clip": 1.0,
    "training.params_ema_decay": 0.999,
    "training.checkpoint_every": 5000,
    "training.init_batches": 4,
    # Utterances; each is decoded in its speaker's voice and in another one.
    "samples.num_samples": 64,
    "samples.batch_size": 64,
    "evaluation.batch_size": 16,
}


CODES = {"model.encoder.downsampling": 64}
# A code explains little of each of its 640 samples: at 0.25 the commitment loss would
# outweigh that.
PHONEMES = {
    "model.encoder.downsampling": 640,
    "model.quantizer.num_codes": 128,
    "model.quantizer.beta": 0.025,
}
UNCONDITIONAL = {"model.encoder.downsampling": 128}
PRIOR = {
    "sequence_prior.network.stacks": 3,
    "sequence_prior.network.channels": 192,
    "sequence_prior.network.dropout": 0.1,
    "sequence_prior.network.dtype": "bfloat16",
    "sequence_prior_training.steps": 50_000,
    "sequence_prior_training.batch_size": 64,
    "sequence_prior_training.learning_rate": 3e-4,
    "sequence_prior_training.schedule": "cosine",
    "sequence_prior_training.warmup_steps": 500,
    "sequence_prior_training.gradient_clip": 1.0,
    "sequence_prior_training.params_ema_decay": 0.999,
    "sequence_prior_training.patience": 5,
}

# Ten speakers, and networks that a CPU trains in minutes.
SMALL = base.change("model.encoder", "model.decoder", dtype="float32") | {
    "data.name": "speech/small",
    "data.crop_samples": 3840,
    "model.quantizer.dim": 32,
    "model.encoder.channels": 64,
    "model.encoder.residual_blocks": 1,
    "model.decoder.stacks": 2,
    "model.decoder.layers": 8,
    "model.decoder.channels": 32,
    "model.decoder.skip_channels": 64,
    "training.steps": 600,
    "training.batch_size": 8,
    "training.learning_rate": 4e-3,
    "training.warmup_steps": 30,
    "training.params_ema_decay": 0.99,
    "training.log_every": 25,
    "training.checkpoint_every": 300,
    "training.init_batches": 8,
    "samples.num_samples": 24,
    "samples.batch_size": 24,
    # The logits of sixteen utterances take 7 GiB.
    "evaluation.batch_size": 4,
}
# With few codes in a batch the mean use of a code is below 0.5 per step, and a dead one
# must be found within tens of steps, not hundreds.
FEW_CODES = {
    "model.quantizer.ema_decay": 0.95,
    "model.quantizer.dead_code_threshold": 0.1,
}
SMALL_PRIOR = {
    "sequence_prior.network.stacks": 2,
    "sequence_prior.network.layers": 6,
    "sequence_prior.network.channels": 64,
    "sequence_prior.network.skip_channels": 64,
    "sequence_prior.network.dtype": "float32",
    "sequence_prior_training.steps": 400,
    "sequence_prior_training.batch_size": 8,
    "sequence_prior_training.learning_rate": 2e-3,
    "sequence_prior_training.warmup_steps": 20,
    "sequence_prior_training.params_ema_decay": 0.98,
    "sequence_prior_training.log_every": 50,
    "sequence_prior_training.checkpoint_every": 200,
}


def variants_on(data: dict) -> dict[str, base.Variant]:
    """Return the variants with changes of the `data` section."""
    small = SPEECH | SMALL
    return {
        "": base.Variant("speech", changes=SPEECH | CODES | data),
        "phonemes": base.Variant("speech", changes=SPEECH | PHONEMES | data),
        "unconditional": base.Variant(
            "speech", "sequence_prior", SPEECH | UNCONDITIONAL | PRIOR | data
        ),
        "small": base.Variant("speech", changes=small | CODES | data),
        "phonemes_small": base.Variant(
            "speech", changes=small | PHONEMES | FEW_CODES | data
        ),
        "unconditional_small": base.Variant(
            "speech",
            "sequence_prior",
            small | UNCONDITIONAL | FEW_CODES | PRIOR | SMALL_PRIOR | data,
        ),
    }


VARIANTS = variants_on({})
get_config = base.variants(__file__, VARIANTS)
