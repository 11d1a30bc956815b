"""encode, decode and reconstruct give what the model's own methods give."""

import numpy as np
import pytest
import soundfile

import vqvae_jax


def stored(folder):
    """The codes of the .npz files of a folder, in order of name."""
    return np.stack([np.load(f)["codes"] for f in sorted(folder.rglob("*.npz"))])


@pytest.fixture
def codes(command, digits, photos, tmp_path):
    """The folder that encode makes of the photos."""
    found = command("encode", digits, photos, tmp_path / "codes", "--batch_size=2")
    assert found == (0, f"{tmp_path / 'codes'}: 5 files\n", "")
    return tmp_path / "codes"


class TestOfImages:
    def test_codes_are_the_models(self, codes, finished_run, images):
        model, params = vqvae_jax.restore(finished_run)
        names = [p.relative_to(codes).as_posix() for p in sorted(codes.rglob("*.npz"))]
        assert names == ["3/0.npz", "3/1.npz", "7/2.npz", "7/3.npz", "7/4.npz"]
        np.testing.assert_array_equal(stored(codes), model.encode(params, images))
        assert len(np.unique(stored(codes))) > 1

    def test_decoded_and_reconstructed_images_are_the_models(
        self, command, codes, digits, finished_run, images, photos, read_images
    ):
        model, params = vqvae_jax.restore(finished_run)
        expected = model.decode(params, model.encode(params, images))[..., 0]
        # A pattern takes files from everywhere, and names them alone.
        pattern = str(codes / "**" / "*.npz")
        for words in (("decode", digits, pattern), ("reconstruct", digits, photos)):
            out = codes.parent / words[0]
            assert command(*words, out, "--batch_size=3").code == 0
            np.testing.assert_array_equal(
                np.stack(list(read_images(out).values())), expected
            )

    @pytest.mark.parametrize("force", [(), ("--force",)])
    def test_photos_are_not_replaced_by_what_is_made_of_them(
        self, refused, digits, own_photos, force
    ):
        """Into the folder that they are in, as somebody does who is told --force."""
        before = {path: path.read_bytes() for path in own_photos.rglob("*.png")}
        said = refused("reconstruct", digits, own_photos, own_photos, *force)
        assert "would be replaced by what is made of it: choose another folder" in said
        after = [path for path in own_photos.rglob("*") if path.is_file()]
        assert {path: path.read_bytes() for path in after} == before

    def test_a_file_in_the_place_of_the_folder(self, refused, digits, photos, tmp_path):
        file = tmp_path / "file"
        file.write_text("mine")
        assert str(file) in refused("encode", digits, photos, file, "--force")
        assert file.read_text() == "mine"

    def test_larger_photos_are_fitted(self, command, digits, tmp_path):
        from PIL import Image

        Image.new("RGB", (40, 24), (200, 10, 10)).save(tmp_path / "a.jpg")
        assert command("encode", digits, tmp_path / "a.jpg", tmp_path / "o").code == 0
        assert stored(tmp_path / "o").shape == (1, 4, 4, 1)

    def test_codes_of_another_model_are_refused(self, refused, codes, other):
        out = codes.parent / "out"
        assert "has the codes of another model" in refused("decode", other, codes, out)
        assert not list(out.glob("*.png"))

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((4, 4, 1), "u1"), None),
            (np.full((4, 4, 1), 16, "u1"), "x.npz must be in 0 ... 15, got 16 ... 16"),
            (np.full((4, 4, 1), 2**32 + 3), "has codes up to 4294967299"),
            (np.zeros((2, 4, 1), "u1"), "x.npz must have shape [4, 4, 1]"),
            (np.zeros((4, 4, 1)), "codes of type float64, expected integers"),
            (None, "has no array `codes`"),
        ],
    )
    def test_codes_that_cannot_be(
        self, command, codes, digits, tmp_path, array, message
    ):
        fingerprint = np.load(codes / "3" / "0.npz")["fingerprint"]
        arrays = {} if array is None else {"codes": array}
        np.savez(tmp_path / "x.npz", fingerprint=fingerprint, **arrays)
        found = command("decode", digits, tmp_path / "x.npz", tmp_path / "out")
        if message is None:
            assert found.code == 0
        else:
            assert found.code == 2
            assert message in found.err
            assert not (tmp_path / "out").exists()

    def test_damaged_files_are_refused_by_name(self, refused, codes, digits, tmp_path):
        whole = (codes / "3" / "0.npz").read_bytes()
        (tmp_path / "x.npz").write_bytes(whole[: len(whole) // 2])
        said = refused("decode", digits, tmp_path / "x.npz", tmp_path / "out")
        assert "x.npz is damaged" in said
        (tmp_path / "x.png").write_bytes(b"no picture")
        said = refused("encode", digits, tmp_path / "x.png", tmp_path / "out")
        assert "1 of 1 images cannot be read" in said
        assert "x.png" in said


@pytest.mark.slow
class TestOfSpeech:
    def test_recordings_to_codes_to_another_voice(
        self, command, speech_run, speech_dir, tmp_path
    ):
        recordings = speech_dir / "test"
        model, params = vqvae_jax.restore(speech_run)
        assert command("encode", speech_run, recordings, tmp_path / "codes").code == 0
        wave, rate = soundfile.read(recordings / "ann" / "1.wav", dtype="int16")
        codes = np.load(tmp_path / "codes" / "ann" / "1.npz")["codes"]
        assert codes.shape == (model.num_latents(len(wave)),)
        expected = model.encode(params, wave[None])[0]
        # Padding is masked: only codes that see the end could differ, and do not.
        np.testing.assert_array_equal(codes, np.asarray(expected)[: len(codes)])

        for words in (("decode", tmp_path / "codes"), ("reconstruct", recordings)):
            name, of = words
            voice = ("--speaker=bob", "--seed=3")
            assert command(name, speech_run, of, tmp_path / name, *voice).code == 0
        for path in sorted((tmp_path / "decode").rglob("*.wav")):
            said, its_rate = soundfile.read(path, dtype="int16")
            assert its_rate == rate
            assert len(said) > 0
            again = tmp_path / "reconstruct" / path.relative_to(tmp_path / "decode")
            np.testing.assert_array_equal(said, soundfile.read(again, dtype="int16")[0])
        assert len(list((tmp_path / "decode").rglob("*.wav"))) == 6

    def test_speech_from_nothing_in_each_voice_in_turn(
        self, command, speech_run, tmp_path
    ):
        found = command("sample", speech_run, tmp_path / "out", "--num=4")
        assert found.code == 0
        names = sorted(path.name for path in (tmp_path / "out").glob("*.wav"))
        assert names == [
            "00000_0000_ann.wav",
            "00001_0001_bob.wav",
            "00002_0002_cy.wav",
            "00003_0000_ann.wav",
        ]

    @pytest.mark.slow
    def test_somebody_must_speak(self, refused, speech_run, speech_dir, tmp_path):
        words = ("reconstruct", speech_run, speech_dir / "test", tmp_path / "out")
        assert "--speaker is missing: one of ann, bob, cy" in refused(*words)
        assert "--speaker=eve: there are ann, bob, cy" in refused(
            *words, "--speaker=eve"
        )
        assert not (tmp_path / "out").exists()
