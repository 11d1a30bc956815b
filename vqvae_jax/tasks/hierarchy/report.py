"""The report's sections on a second VQ-VAE: frames from 27 bits, and latent use."""

from collections.abc import Mapping

from vqvae_jax.data.dataset import Dataset
from vqvae_jax.data.source import evenly_spaced, read_many, stack
from vqvae_jax.pipeline.run import Context
from vqvae_jax.report import image_grid
from vqvae_jax.report.build import samples_section
from vqvae_jax.report.page import Picture, Section
from vqvae_jax.runtime.safe_io import read_arrays
from vqvae_jax.tasks.hierarchy.evaluation import RECONSTRUCTIONS

# One row of each kind, so that reconstructions are right below their frame.
_ROWS = 1


def hierarchy_sections(context: Context) -> list[Section]:
    """Return the sections of reconstructions, latent use and samples."""
    workdir, _, dataset = context
    results = workdir.read_results()
    text = "Global codes drawn by frequency, codes drawn given them, then decoded."
    return [
        _reconstructions(workdir, dataset, results),
        latent_use(results),
        samples_section(workdir, text),
    ]


def latent_use(results: Mapping[str, float]) -> Section:
    """Return the table of bits per frame for each model and kind of latents."""

    def bits(name: str) -> str:
        return f"{results[name]:,.1f}"

    text = (
        "Bits per test frame. The decoder scores a frame's codes given the frame's "
        "latents and given those of another frame; equal costs mean that it ignores "
        "them."
    )
    head = ("", "own latents", "another frame's", "latents", "decoder + latents")
    models = (
        ("second VQ-VAE", "", "global_bits_per_frame"),
        ("VAE, same networks", "vae_", "vae_kl_bits_per_frame"),
    )
    rows = [
        (
            name,
            bits(f"{prefix}decoder_bits_per_frame_right_latents"),
            bits(f"{prefix}decoder_bits_per_frame_other_latents"),
            bits(rate),
            bits(f"{prefix}total_bits_per_frame"),
        )
        for name, prefix, rate in models
    ]
    without = bits("decoder_bits_per_frame_without_latents")
    rows.append(("PixelCNN without latents", "–", "–", "0", without))
    return Section("Are the latents used?", text, [], [head, *rows])


def _reconstructions(workdir, dataset: Dataset, results) -> Section:
    arrays = read_arrays(workdir.reconstructions, RECONSTRUCTIONS)
    frames = arrays.pop("frames")
    columns = image_grid.columns_for(dataset.image_shape)
    chosen = evenly_spaced(len(frames), _ROWS * columns)
    originals = stack(read_many(dataset.test, frames[chosen].tolist()))["image"]
    first_bits, bits = results["code_bits"], results["global_bits_per_frame"]
    captions = {
        "first_stage": f"first VQ-VAE: {first_bits:,.0f} bits",
        "hierarchy": f"drawn from {results['global_codes']} codes: {bits:.0f} bits",
        "hierarchy_vae": "drawn from the latents of a VAE with the same networks: "
        f"{results['vae_kl_bits_per_frame']:.1f} bits",
    }
    rows = {"test frames": originals}
    rows |= {captions[name]: images[chosen] for name, images in arrays.items()}
    pictures = [
        Picture(image_grid.image_grid(images, columns=columns), caption, caption)
        for caption, images in rows.items()
    ]
    text = (
        "Test frames, and the same frames from fewer and fewer bits. The PixelCNN "
        "draws what the latents do not determine."
    )
    return Section("Frames from their global codes", text, pictures)
