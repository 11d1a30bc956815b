"""sample and info, and the kinds of models that commands accept."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import vqvae_jax
from vqvae_jax.networks.autoencoder import Decoder, Encoder
from vqvae_jax.networks.pixelcnn import PixelCNN
from vqvae_jax.pretrained.card import summary
from vqvae_jax.pretrained.loading import find
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.workdir import Workdir


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """An untrained VAE as a file."""
    return untrained_vae(0, tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module")
def pixelcnn(tmp_path_factory):
    """An untrained PixelCNN on pixels as a file."""
    network = PixelCNN(layers=1, channels=8, kernel_size=3)
    model = vqvae_jax.PixelModel(image_shape=(8, 8, 1), network=network)
    return untrained(model, 0, tmp_path_factory.mktemp("pixelcnn"))


def untrained_vae(seed, folder):
    sizes = {"channels": 8, "num_downsamples": 1, "residual_channels": 8}
    model = vqvae_jax.VAE(
        image_shape=(8, 8, 1), encoder=Encoder(**sizes), decoder=Decoder(**sizes)
    )
    return untrained(model, seed, folder)


def untrained(model, seed, folder):
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), model.init_batch())
    params = model.init(jax.random.key(seed), zeros)
    return vqvae_jax.save_pretrained((model, params), folder)


class TestSample:
    def test_classes_take_turns_and_missing_files_are_drawn_again(
        self, command, digits_file, read_images, tmp_path
    ):
        words = ("sample", digits_file, tmp_path / "a", "--num=5", "--batch_size=2")
        assert command(*words) == (0, f"{tmp_path / 'a'}: 5 files\n", "")
        before = read_images(tmp_path / "a")
        names = [f"sample_0000{number}_class{number}.png" for number in range(5)]
        assert list(before) == ["contact_sheet.png", *names]
        assert len({before[name].tobytes() for name in names}) > 1
        # One of the first batch and one of the last.
        for name in (names[1], names[4]):
            (tmp_path / "a" / name).unlink()
        assert command(*words).out == f"{tmp_path / 'a'}: 5 files (3 existed)\n"
        after = read_images(tmp_path / "a")
        for name, image in before.items():
            np.testing.assert_array_equal(after[name], image)

    def test_another_seed_gives_other_samples_and_needs_another_folder(
        self, command, error_of, digits_file, read_images, tmp_path
    ):
        words = ("sample", digits_file, tmp_path / "a", "--num=2", "--label=7")
        assert command(*words).code == 0
        before = read_images(tmp_path / "a")
        names = ["sample_00000_class7.png", "sample_00001_class7.png"]
        assert list(before) == ["contact_sheet.png", *names]
        assert "results of another command (seed: 0, not 1)" in error_of(
            *words, "--seed=1"
        )
        assert command(*words, "--seed=1", "--force").code == 0
        after = read_images(tmp_path / "a")
        assert any((after[name] != before[name]).any() for name in before)

    @pytest.mark.parametrize("kind", ["prior", "vae", "pixelcnn"])
    def test_a_sample_depends_neither_on_the_batch_nor_on_the_others(
        self, command, read_images, tmp_path, request, kind, pixelcnn
    ):
        """Ten in one go are those of three batches, and of a folder that grows."""
        fixture = {"prior": "digits_file"}.get(kind, kind)
        words = ("sample", request.getfixturevalue(fixture))
        drawn = {}
        for batch in (10, 4):
            out = tmp_path / str(batch)
            found = command(*words, out, "--num=10", f"--batch_size={batch}")
            assert found.code == 0
            drawn[batch] = read_images(out)
        assert list(drawn[4]) == list(drawn[10])
        for name, image in drawn[10].items():
            # Products of matrices of other shapes are rounded otherwise.
            difference = np.abs(drawn[4][name].astype(int) - image).max()
            assert difference <= 1, name
        found = command(*words, tmp_path / "10", "--num=12", "--batch_size=3")
        assert found.out == f"{tmp_path / '10'}: 12 files (10 existed)\n"
        images = [image.tobytes() for image in read_images(tmp_path / "10").values()]
        assert len(images) == 13
        assert len(set(images)) > 11

    def test_the_contact_sheet_has_all_samples_of_the_command(
        self, command, error_of, digits_file, read_images, tmp_path
    ):
        out = tmp_path / "a"
        for num, rows in ((3, 1), (18, 2)):
            assert command("sample", digits_file, out, f"--num={num}").code == 0
            sheet = read_images(out)["contact_sheet.png"]
            assert sheet.shape[2] == 4
            # Tiles of 64 pixels, four apart.
            assert sheet.shape[:2] == (68 * rows - 4, 68 * min(num, 10) - 4)
        first = read_images(out)["sample_00000_class0.png"]
        enlarged = first.repeat(8, axis=0).repeat(8, axis=1)
        np.testing.assert_array_equal(sheet[:64, :64, 0], enlarged)
        # It is no image of the folder.
        found = command("encode", digits_file, out, tmp_path / "codes")
        assert found.out == f"{tmp_path / 'codes'}: 18 files\n"
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "contact_sheet.png").write_bytes(b"mine")
        line = error_of("sample", digits_file, tmp_path / "b")
        assert "contact_sheet.png exists already: choose another folder" in line

    def test_another_decoder_or_prior_needs_another_folder(
        self, command, error_of, finished_run, tmp_path
    ):
        """The fingerprint is the same: only the decoder, or the prior, differs."""
        model, params = vqvae_jax.restore(finished_run)
        prior, prior_params = vqvae_jax.restore(finished_run, "prior")
        nudged = [jax.tree.map(lambda x: x + 1, p) for p in (params, prior_params)]
        nudged[0] = params._replace(decoder=nudged[0].decoder)
        sources = {
            "a": (model, params, prior, prior_params),
            "decoder": (model, nudged[0], prior, prior_params),
            "prior": (model, params, prior, nudged[1]),
        }
        files = {
            name: vqvae_jax.save_pretrained(source, tmp_path / name)
            for name, source in sources.items()
        }
        out = tmp_path / "out"
        assert command("sample", files["a"], out, "--num=2").code == 0
        for name, key in (("decoder", "model"), ("prior", "prior")):
            line = error_of("sample", files[name], out, "--num=2")
            assert f"results of another command ({key}: '" in line
        assert "(2 existed)" in command("sample", files["a"], out, "--num=2").out

    @pytest.mark.parametrize(
        ("word", "message"),
        [
            ("--label=eleven", "--label=eleven: the prior has the classes 0, 1, 2"),
            ("--temperature=-1", "temperature"),
            ("--top_k=0", "top_k"),
            ("--top_p=2", "top_p"),
        ],
    )
    def test_invalid_options_raise(
        self, error_of, digits_file, tmp_path, word, message
    ):
        assert message in error_of("sample", digits_file, tmp_path / "a", word)
        assert not (tmp_path / "a").exists()

    def test_a_model_without_a_prior_accepts_no_options_of_logits(
        self, command, error_of, read_images, tmp_path, vae
    ):
        assert command("sample", vae, tmp_path / "a", "--num=3").code == 0
        made = read_images(tmp_path / "a")
        assert made.pop("contact_sheet.png").shape == (64, 3 * 68 - 4, 4)
        assert [image.shape for image in made.values()] == [(8, 8)] * 3
        for word in ("--top_k=1", "--top_p=0.5", "--temperature=2"):
            line = error_of("sample", vae, tmp_path / "b", word)
            name = word.split("=")[0]
            assert f"{name}: the samples of a vae are not drawn from logits" in line
        assert "trained without classes" in error_of(
            "sample", vae, tmp_path / "b", "--label=3"
        )

    def test_pixels_are_drawn_from_the_most_likely(
        self, command, read_images, tmp_path, pixelcnn
    ):
        for word, distinct in (("--top_k=1", 1), ("--top_p=1e-6", 1), ("--top_k=9", 3)):
            out = tmp_path / word
            assert command("sample", pixelcnn, out, "--num=3", word).code == 0
            made = read_images(out)
            del made["contact_sheet.png"]
            drawn = np.stack(list(made.values()))
            assert len(np.unique(drawn, axis=0)) == distinct

    def test_a_missing_prior_raises(self, error_of, nudged_file, tmp_path):
        line = error_of("sample", nudged_file, tmp_path / "a")
        assert "has no prior: it is followed by nothing" in line

    def test_a_prior_over_other_codes_raises(self, error_of, finished_run, tmp_path):
        run = shutil.copytree(finished_run, tmp_path / "run")
        metadata = json.loads((run / "prior.json").read_text())
        (run / "prior.json").write_text(json.dumps(metadata | {"fingerprint": "0"}))
        line = error_of("sample", run, tmp_path / "a")
        assert "was trained on the codes of another model (0, now" in line

    def test_a_damaged_checkpoint_is_named(self, error_of, copied_run, tmp_path):
        """The parameters of an older one do not fit the prior."""
        checkpoints = copied_run / "checkpoints" / "vqvae"
        best = json.loads((checkpoints / "finished.json").read_text())["best_step"]
        (damaged,) = (checkpoints / str(best) / "params" / "d").iterdir()
        damaged.write_bytes(b"")
        message = (
            f"{checkpoints / str(best)} is damaged (cannot read {damaged}), and the "
            "prior was trained on its codes: copy it from a backup, or "
        )
        with pytest.warns(UserWarning, match="is skipped"):
            line = error_of("sample", copied_run, tmp_path / "a")
        assert message in line
        workdir = Workdir(copied_run)
        with pytest.warns(UserWarning, match="is skipped"):
            restored = workdir.restore()
        with pytest.raises(UserError, match=re.escape(f"{message}remove ")):
            workdir.require_same_codebook(*restored)
        with (
            pytest.warns(UserWarning, match="is skipped"),
            pytest.raises(UserError, match=re.escape(message)),
        ):
            vqvae_jax.save_pretrained(copied_run, tmp_path / "saved")


class TestInfo:
    def test_escape_sequences_are_not_printed(
        self, command, error_of, digits_file, tmp_path
    ):
        with safetensors.safe_open(digits_file, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = dict(file.metadata())
        about = json.loads(header["about"])
        about["second_options"]["given"]["class_names"][0] = "\x1b[2J"
        about["results"]["\x1b[2J"] = 1.0
        changed = header | {"about": json.dumps(about)}
        path = tmp_path / "x.safetensors"
        path.write_bytes(safetensors.numpy.save(arrays, changed))
        for options in ((), ("--json",)):
            found = command("info", path, *options)
            assert found.code == 0
            assert "[2J" in found.out
            assert "\x1b" not in found.out
        changed = header | {"version": "\x1b[2J"}
        path.write_bytes(safetensors.numpy.save(arrays, changed))
        assert "\x1b" not in error_of("info", path)

    def test_json_has_the_summary_and_the_results(self, command, finished_run):
        found = command("info", finished_run, "--json")
        assert (found.code, found.err) == (0, "")
        metadata = find(finished_run).metadata
        expected = {**summary(metadata), "results": metadata.results}
        assert json.loads(found.out) == expected

    def test_the_table_has_a_line_of_each(self, command, digits_file):
        lines = command("info", digits_file).out.splitlines()
        assert lines[0].split() == ["kind", "vqvae", "(VQVAE)"]
        assert any(line.split() == ["codebook_codes", "16"] for line in lines)


def test_commands_list_the_kinds_that_they_accept(
    command, error_of, photos, vae, tmp_path
):
    line = error_of("encode", vae, photos, tmp_path / "a")
    assert "encode needs a model of kind vqvae or speech, and" in line
    assert line.endswith("is a vae\n")
    assert command("reconstruct", vae, photos, tmp_path / "a").code == 0
    assert len(list((tmp_path / "a").rglob("*.png"))) == 5
    another = untrained_vae(1, tmp_path / "vae")
    line = error_of("reconstruct", another, photos, tmp_path / "a")
    assert "results of another command (model: '" in line
    assert "does not exist: expected a run's workdir" in error_of(
        "info", tmp_path / "x"
    )
