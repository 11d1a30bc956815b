"""sample and info, and what a model must be for a command."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vqvae_jax
from vqvae_jax.models.first import KINDS
from vqvae_jax.pretrained.loading import find
from vqvae_jax.pretrained.summary import facts


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """A VAE that has learned nothing, as a file."""
    return untrained_vae(0, tmp_path_factory.mktemp("vae"))


def untrained_vae(seed, folder):
    model = vqvae_jax.VAE(image_shape=(8, 8, 1), stages=1, units=8, residual_units=8)
    return untrained("vae", model, seed, folder)


def untrained(kind, model, seed, folder):
    shapes = KINDS[kind].batch(model)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    params = model.init(jax.random.key(seed), zeros)
    return vqvae_jax.save_pretrained((model, params), folder)


class TestSample:
    def test_classes_in_turn_and_the_same_draw_again(
        self, command, digits, read_images, tmp_path
    ):
        words = ("sample", digits, tmp_path / "a", "--num=5", "--batch_size=2")
        assert command(*words) == (0, f"{tmp_path / 'a'}: 5 files\n", "")
        before = read_images(tmp_path / "a")
        assert list(before) == [
            f"0000{number}_000{number}_{number}.png" for number in range(5)
        ]
        assert len({image.tobytes() for image in before.values()}) > 1
        # One of the last batch and one of the first are lost: only they are drawn.
        for name in ("00001_0001_1.png", "00004_0004_4.png"):
            (tmp_path / "a" / name).unlink()
        assert command(*words).out == (
            f"{tmp_path / 'a'}: 5 files (3 were there already)\n"
        )
        after = read_images(tmp_path / "a")
        for name, image in before.items():
            np.testing.assert_array_equal(after[name], image)

    def test_another_seed_is_another_draw_and_another_folder(
        self, command, refused, digits, read_images, tmp_path
    ):
        words = ("sample", digits, tmp_path / "a", "--num=2", "--label=7")
        assert command(*words).code == 0
        before = read_images(tmp_path / "a")
        assert list(before) == ["00000_0007_7.png", "00001_0007_7.png"]
        assert "results of another command (seed: 0, not 1)" in refused(
            *words, "--seed=1"
        )
        assert command(*words, "--seed=1", "--force").code == 0
        after = read_images(tmp_path / "a")
        assert any((after[name] != before[name]).any() for name in before)

    def test_another_model_or_prior_is_another_folder(
        self, command, refused, finished_run, tmp_path
    ):
        """Whose codes are the same ones: only the decoder, or the prior, is another."""
        model, params = vqvae_jax.restore(finished_run)
        prior, prior_params = vqvae_jax.restore_prior(finished_run)
        nudged = [jax.tree.map(lambda x: x + 1, p) for p in (params, prior_params)]
        nudged[0] = params._replace(decoder=nudged[0].decoder)
        of = {
            "a": (model, params, prior, prior_params),
            "decoder": (model, nudged[0], prior, prior_params),
            "prior": (model, params, prior, nudged[1]),
        }
        files = {k: vqvae_jax.save_pretrained(v, tmp_path / k) for k, v in of.items()}
        out = tmp_path / "out"
        assert command("sample", files["a"], out, "--num=2").code == 0
        for name, told in (("decoder", "model"), ("prior", "prior")):
            said = refused("sample", files[name], out, "--num=2")
            assert f"results of another command ({told}: '" in said
        found = command("sample", files["a"], out, "--num=2")
        assert "(2 were there already)" in found.out

    @pytest.mark.parametrize(
        ("word", "message"),
        [
            ("--label=eleven", "--label=eleven: the prior knows the classes 0, 1, 2"),
            ("--temperature=-1", "temperature"),
            ("--top_k=0", "top_k"),
            ("--top_p=2", "top_p"),
        ],
    )
    def test_what_cannot_be_drawn(self, refused, digits, tmp_path, word, message):
        assert message in refused("sample", digits, tmp_path / "a", word)
        assert not (tmp_path / "a").exists()

    def test_from_a_model_that_needs_no_prior(
        self, command, refused, read_images, tmp_path, vae
    ):
        assert command("sample", vae, tmp_path / "a", "--num=3").code == 0
        made = read_images(tmp_path / "a")
        assert [image.shape for image in made.values()] == [(8, 8)] * 3
        for word in ("--top_k=1", "--top_p=0.5", "--temperature=2"):
            said = refused("sample", vae, tmp_path / "b", word)
            name = word.split("=")[0]
            assert f"{name}: the samples of a vae are drawn from no logits" in said
        assert "trained without classes" in refused(
            "sample", vae, tmp_path / "b", "--label=3"
        )

    def test_pixels_are_drawn_from_the_likeliest(self, command, read_images, tmp_path):
        sizes = {"layers": 1, "units": 8, "kernel_size": 3}
        model = vqvae_jax.PixelModel(image_shape=(8, 8, 1), **sizes)
        file = untrained("pixelcnn", model, 0, tmp_path / "pixelcnn")
        for word, distinct in (("--top_k=1", 1), ("--top_p=1e-6", 1), ("--top_k=9", 3)):
            out = tmp_path / word
            assert command("sample", file, out, "--num=3", word).code == 0
            drawn = np.stack(list(read_images(out).values()))
            assert len(np.unique(drawn, axis=0)) == distinct

    def test_without_a_prior(self, refused, other, tmp_path):
        said = refused("sample", other, tmp_path / "a")
        assert "has no prior: it is followed by nothing" in said

    def test_with_the_prior_of_other_codes(self, refused, finished_run, tmp_path):
        run = shutil.copytree(finished_run, tmp_path / "run")
        known = json.loads((run / "prior.json").read_text())
        (run / "prior.json").write_text(json.dumps(known | {"fingerprint": "0"}))
        said = refused("sample", run, tmp_path / "a")
        assert "was trained on the codes of another model (0, now" in said


class TestInfo:
    def test_json_is_the_facts_and_the_results(self, command, finished_run):
        found = command("info", finished_run, "--json")
        assert (found.code, found.err) == (0, "")
        about = find(finished_run).about
        assert json.loads(found.out) == {**facts(about), "results": about.results}

    def test_a_table_for_people(self, command, digits):
        lines = command("info", digits).out.splitlines()
        assert lines[0].split() == ["kind", "vqvae", "(VQVAE)"]
        assert any(line.split() == ["codebook_codes", "16"] for line in lines)


def test_commands_tell_which_kinds_they_take(command, refused, photos, vae, tmp_path):
    said = refused("encode", vae, photos, tmp_path / "a")
    assert "encode needs a model of kind vqvae or speech, and" in said
    assert said.endswith("is a vae\n")
    assert command("reconstruct", vae, photos, tmp_path / "a").code == 0
    assert len(list((tmp_path / "a").rglob("*.png"))) == 5
    another = untrained_vae(1, tmp_path / "vae")
    said = refused("reconstruct", another, photos, tmp_path / "a")
    assert "results of another command (model: '" in said
    assert "does not exist: expected a run's workdir" in refused("info", tmp_path / "x")
