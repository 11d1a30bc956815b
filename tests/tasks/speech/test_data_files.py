"""The facts that identify a folder of recordings."""

from vqvae_jax.pipeline import data_files
from vqvae_jax.tasks.speech.data_config import SpeechDataConfig


def facts_of(folder):
    data = SpeechDataConfig(source="folder", data_dir=str(folder), crop_samples=512)
    return data_files.facts_of(data)


def test_recordings_and_their_phones_count(tmp_path):
    folder = tmp_path / "train" / "ann"
    folder.mkdir(parents=True)
    for name in ("0.wav", "0.tsv", "1.flac", "1.txt"):
        (folder / name).write_text("x")
    facts = facts_of(tmp_path)
    assert (facts["class_names"], facts["splits"]["train"]["files"]) == (["ann"], 3)
    (folder / "0.tsv").write_text("longer")
    assert facts_of(tmp_path) != facts
