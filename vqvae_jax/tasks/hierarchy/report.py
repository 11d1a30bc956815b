"""What the page of a second VQ-VAE shows: 27 bits a frame, and that they are used."""

from collections.abc import Mapping

from vqvae_jax.data.dataset import Dataset
from vqvae_jax.data.source import read_many, spread, stack
from vqvae_jax.experiment import Experiment
from vqvae_jax.report import image_grid
from vqvae_jax.report.build import samples_section
from vqvae_jax.report.page import Picture, Section
from vqvae_jax.workdir import Workdir

# One row of each kind, so that a frame stands right above what is made of it.
_ROWS = 1


def sections_of_hierarchy(
    workdir: Workdir, experiment: Experiment, dataset: Dataset
) -> list[Section]:
    """Return the sections of reconstructions, latent use and samples."""
    del experiment
    results = workdir.read_results()
    drawn = (
        "Global codes drawn by how often each occurs, codes from them, then the image."
    )
    return [
        _reconstructions(workdir, dataset, results),
        latent_use(results),
        samples_section(workdir, drawn),
    ]


def latent_use(results: Mapping[str, float]) -> Section:
    """Return the table of bits per frame, of each model with each kind of latents."""

    def bits(name: str) -> str:
        return f"{results[name]:,.1f}"

    text = (
        "Bits per test frame. The decoder scores a frame's codes with the frame's own "
        "latents and with those of another frame: where both cost the same, it does "
        "not use them."
    )
    head = ("", "own latents", "another frame's", "latents", "decoder + latents")
    of_each = (
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
        for name, prefix, rate in of_each
    ]
    without = bits("decoder_bits_per_frame_without_latents")
    rows.append(("PixelCNN without latents", "–", "–", "0", without))
    return Section("Are the latents used?", text, [], [head, *rows])


def _reconstructions(workdir, dataset: Dataset, results) -> Section:
    arrays = workdir.read_reconstructions()
    frames = arrays.pop("frames")
    columns = image_grid.columns_for(dataset.image_shape)
    chosen = spread(len(frames), _ROWS * columns)
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
        "Test frames, and the same frames from ever fewer bits. What the latents leave "
        "open is drawn by the PixelCNN."
    )
    return Section("Frames from their global code", text, pictures)
