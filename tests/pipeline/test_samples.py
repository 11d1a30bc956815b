"""The files of the stage `samples`."""

import numpy as np

import vqvae_jax


def test_samples_hold_images_and_labels(finished_run):
    with np.load(finished_run / "samples.npz", allow_pickle=False) as samples:
        assert samples["images"].shape == (40, 8, 8, 1)
        assert samples["images"].dtype == np.uint8
        np.testing.assert_array_equal(samples["labels"], np.arange(40) % 10)
        assert samples["class_names"].tolist() == list("0123456789")
        images, codes = samples["images"], samples["codes"]
    model, params = vqvae_jax.restore(finished_run)
    np.testing.assert_array_equal(model.decode(params, codes), images)
    pictures = sorted(p.name for p in (finished_run / "samples").iterdir())
    assert pictures == [f"{i:04d}_{i}.png" for i in range(10)]
