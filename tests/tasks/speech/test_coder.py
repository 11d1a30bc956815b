"""Commands on models of speech: codes, voices and samples."""

import numpy as np
import pytest
import soundfile

import vqvae_jax

pytestmark = pytest.mark.slow


def test_recordings_are_encoded_and_decoded_with_another_voice(
    command, speech_run, speech_dir, tmp_path
):
    recordings = speech_dir / "test"
    model, params = vqvae_jax.restore(speech_run)
    assert command("encode", speech_run, recordings, tmp_path / "codes").code == 0
    wave, rate = soundfile.read(recordings / "ann" / "1.wav", dtype="int16")
    codes = np.load(tmp_path / "codes" / "ann" / "1.npz")["codes"]
    assert codes.shape == (model.num_latents(len(wave)),)
    expected = model.encode(params, wave[None])[0]
    # Padding is masked, so that it does not even change the codes at the end.
    np.testing.assert_array_equal(codes, np.asarray(expected)[: len(codes)])

    for name, source in (("decode", tmp_path / "codes"), ("reconstruct", recordings)):
        words = (name, speech_run, source, tmp_path / name, "--speaker=bob", "--seed=3")
        assert command(*words).code == 0
    for path in sorted((tmp_path / "decode").rglob("*.wav")):
        decoded, decoded_rate = soundfile.read(path, dtype="int16")
        assert decoded_rate == rate
        assert len(decoded) > 0
        same = tmp_path / "reconstruct" / path.relative_to(tmp_path / "decode")
        np.testing.assert_array_equal(decoded, soundfile.read(same, dtype="int16")[0])
    assert len(list((tmp_path / "decode").rglob("*.wav"))) == 6


def test_samples_use_each_voice_in_turn(command, speech_run, tmp_path):
    found = command("sample", speech_run, tmp_path / "out", "--num=4")
    assert found.code == 0
    names = sorted(path.name for path in (tmp_path / "out").glob("*.wav"))
    assert names == [
        "sample_00000_ann.wav",
        "sample_00001_bob.wav",
        "sample_00002_cy.wav",
        "sample_00003_ann.wav",
    ]


def test_audio_depends_neither_on_the_batch_nor_on_the_other_files(
    command, speech_run, speech_dir, tmp_path
):
    """Files of several lengths, in pairs and all at once."""
    options = ("--speaker=bob", "--seed=3")
    recordings = speech_dir / "test"
    for batch in (6, 2):
        words = ("reconstruct", speech_run, recordings, tmp_path / str(batch))
        assert command(*words, *options, f"--batch_size={batch}").code == 0
    pairs = sorted((tmp_path / "2").rglob("*.wav"))
    assert len(pairs) == 6
    for path in pairs:
        same = tmp_path / "6" / path.relative_to(tmp_path / "2")
        _assert_near(soundfile.read(path)[0], soundfile.read(same)[0])


def _assert_near(first, second):
    """Rounding may change a draw, which changes what follows; rarely."""
    assert first.shape == second.shape
    assert np.mean(first == second) > 0.9


def test_a_missing_or_unknown_speaker_raises(
    error_of, speech_run, speech_dir, tmp_path
):
    words = ("reconstruct", speech_run, speech_dir / "test", tmp_path / "out")
    assert "--speaker is missing: one of ann, bob, cy" in error_of(*words)
    assert "--speaker=eve: there are ann, bob, cy" in error_of(*words, "--speaker=eve")
    assert not (tmp_path / "out").exists()
