"""TFDS's builders of VCTK and LibriSpeech, with a few generated utterances."""

import io
import pickle
import socket
import zlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import registered
from tensorflow_datasets.proto import tf_example_pb2

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech.dataset import SpeechDataConfig, open_speech
from vqvae_jax.tasks.speech.tfds import SpeechTfdsSource, open_speech_tfds

pytest.importorskip("soxr", reason="soxr is not installed")


def sound(samples, *, seed=0):
    """16-bit noise that resampling does not clip."""
    return np.random.default_rng(seed).integers(-9_000, 9_000, samples, np.int16)


def prepare(builder):
    builder.download_and_prepare(file_format="array_record")


def open_at(path, name, sample_rate=16_000):
    return open_speech_tfds(name, data_dir=str(path), sample_rate=sample_rate)


@pytest.fixture(scope="module")
def vctk_dir(tmp_path_factory):
    from tensorflow_datasets.audio import vctk

    # Otherwise the class would replace TFDS's builder in the registry.
    with registered.skip_registration():

        class Vctk(vctk.Vctk):
            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples()}

            def _generate_examples(self):
                for i in range(20):
                    yield (
                        i,
                        {
                            "id": f"p225_{i:03}",
                            "speaker": ("p227", "p226")[i % 2],
                            "gender": 0,
                            "accent": 0,
                            "text": f"Sentence {i // 2}.",
                            "speech": sound(24_000 + 3 * i, seed=i),
                        },
                    )

    path = tmp_path_factory.mktemp("vctk")
    prepare(Vctk(data_dir=path, config="mic1"))
    return path


@pytest.fixture(scope="module")
def librispeech_dir(tmp_path_factory):
    from tensorflow_datasets.datasets.librispeech import librispeech_dataset_builder

    splits = {
        "train_clean100": (19, 26),
        "train_clean360": (14,),
        "train_other500": (20,),
        "dev_clean": (84, 26),
        "test_clean": (61,),
    }
    # Otherwise the class would replace TFDS's builder in the registry.
    with registered.skip_registration():

        class Librispeech(librispeech_dataset_builder.Builder):
            name = "librispeech"

            def _split_generators(self, dl_manager):
                self.info.metadata["speakers"] = {
                    speaker: {"subset": split.replace("_clean", "-clean-")}
                    for split, speakers in splits.items()
                    for speaker in speakers
                    if split.startswith("train")
                }
                return {
                    split: self._generate_examples(speakers)
                    for split, speakers in splits.items()
                }

            def _generate_examples(self, speakers):
                for speaker in speakers:
                    key = f"{speaker}-1-{speaker}"
                    yield (
                        key,
                        {
                            "id": key,
                            "speaker_id": speaker,
                            "chapter_id": 1,
                            "text": "THE SAME WORDS",
                            "speech": sound(8_000 + speaker, seed=speaker),
                        },
                    )

    path = tmp_path_factory.mktemp("librispeech")
    prepare(Librispeech(data_dir=path))
    return path


def test_vctk(vctk_dir):
    opened = open_speech(
        SpeechDataConfig(
            source="tfds",
            name="vctk/mic1",
            data_dir=str(vctk_dir),
            crop_samples=1_000,
            validation_fraction=0.1,
        )
    )
    assert [len(source) for source in opened[:3]] == [16, 2, 2]
    assert len(opened.speaker_names) == 110
    assert opened.phone_names == ()
    found = {}
    for source in opened[:3]:
        for index in range(len(source)):
            example = source[index]
            length = len(example["audio"])
            assert example["audio"].dtype == np.int16
            assert source.lengths[index] == length
            assert example["phones"].shape == (0, 3)
            # Resampled from 48 to 16 kHz.
            i = length - 8_000
            assert opened.speaker_names[example["speaker"]] == ("p227", "p226")[i % 2]
            found[i] = int(example["sentence"])
    assert sorted(found) == list(range(20))
    # Two speakers read each sentence.
    assert all(found[i] == found[i ^ 1] >= 0 for i in range(20))
    assert len(set(found.values())) == 10


def test_audio_at_the_original_rate_is_unchanged(vctk_dir):
    source = open_at(vctk_dir, "vctk/mic1", 48_000).sources["train"]
    for index in range(len(source)):
        got = source[index]["audio"]
        i = (len(got) - 24_000) // 3
        np.testing.assert_array_equal(got, sound(24_000 + 3 * i, seed=i))


def test_source_can_be_pickled(vctk_dir):
    source = open_at(vctk_dir, "vctk/mic1").sources["train"]
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[1]["audio"], source[1]["audio"])


def test_librispeech(librispeech_dir):
    splits = open_at(librispeech_dir, "librispeech")
    # Only clean speech.
    assert splits.speaker_names == ("14", "19", "26")
    found = {}
    for role, source in splits.sources.items():
        examples = [source[index] for index in range(len(source))]
        for example in examples:
            speaker = len(example["audio"]) - 8_000
            np.testing.assert_array_equal(
                example["audio"], sound(8_000 + speaker, seed=speaker)
            )
        found[role] = {(len(e["audio"]) - 8_000, int(e["speaker"])) for e in examples}
        assert len({int(e["sentence"]) for e in examples}) == 1
    assert found == {
        "train": {(14, 0), (19, 1), (26, 2)},
        "validation": {(84, -1), (26, 2)},
        "test": {(61, -1)},
    }


class Plain(tfds.core.GeneratorBasedBuilder):
    """A set of audio without speakers, and by default without a sample rate."""

    VERSION = tfds.core.Version("1.0.0")
    RATE: int | None = None
    SAMPLES = 8_000

    def _info(self):
        metadata = {"sample_rate": self.RATE} if self.RATE else {}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {"audio": tfds.features.Tensor(shape=(None,), dtype=np.int16)}
            ),
            metadata=tfds.core.MetadataDict(metadata),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "test": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"audio": sound(self.SAMPLES)}


class WithRate(Plain):
    RATE = 16_000


class Short(Plain):
    RATE = 16_000
    SAMPLES = 1_600


def record(**features):
    """A serialised example in the format of TFDS."""
    example = tf_example_pb2.Example()
    for name, value in features.items():
        feature = example.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        else:
            feature.int64_list.value.extend(value)
    return example.SerializeToString()


def test_all_audio_encodings_of_tfds_are_decoded():
    """Integers, compressed bytes, and whole files of lazily decoded sets."""
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    file = io.BytesIO()
    soundfile.write(file, sound(9_000), 16_000, format="FLAC")
    encodings = (
        sound(9_000).tolist(),
        zlib.compress(sound(9_000).tobytes()),
        file.getvalue(),
    )
    source = SpeechTfdsSource(
        [record(speech=speech, speaker=[7]) for speech in encodings],
        name="encodings",
        audio_key="speech",
        speaker_key="speaker",
        speakers={7: 3},
        from_rate=16_000,
        sample_rate=16_000,
    )
    assert source.lengths.tolist() == [9_000] * 3
    for index in range(3):
        np.testing.assert_array_equal(source[index]["audio"], sound(9_000))
        assert source[index]["speaker"] == 3


def test_without_network_the_error_suggests_an_alternative(tmp_path, monkeypatch):
    def unknown(host, port):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with pytest.raises(UserError, match=r"vctk/.*or choose data\.name='speech'"):
        open_at(tmp_path, "vctk")


class TestOthers:
    def test_set_without_speakers_has_one_speaker(self, tmp_path):
        prepare(WithRate(data_dir=tmp_path))
        splits = open_at(tmp_path, "with_rate")
        assert splits.speaker_names == ("speaker",)
        example = splits.sources["train"][0]
        assert example["speaker"] == 0
        assert example["sentence"] == -1
        np.testing.assert_array_equal(example["audio"], sound(8_000))

    def test_set_without_a_sample_rate_raises(self, tmp_path):
        prepare(Plain(data_dir=tmp_path))
        with pytest.raises(UserError, match="'plain' has no sample rate"):
            open_at(tmp_path, "plain")

    def test_too_short_utterance_raises(self, tmp_path):
        prepare(Short(data_dir=tmp_path))
        with pytest.raises(
            UserError, match=r"short.*utterance 0 contains 1600 samples"
        ):
            open_at(tmp_path, "short")

    def test_image_set_raises(self, tmp_path):
        with pytest.raises(UserError, match="'digits' has no feature speech or audio"):
            open_at(tmp_path, "digits")

    def test_damaged_set_raises(self, tmp_path):
        prepare(WithRate(data_dir=tmp_path))
        file = next((tmp_path / "with_rate" / "1.0.0").glob("*train*"))
        file.write_bytes(b"damaged" * 20_000)
        with pytest.raises(UserError, match="cannot be read"):
            open_at(tmp_path, "with_rate")

    def test_unknown_name_suggests_similar_names(self, tmp_path):
        with pytest.raises(UserError, match="did you mean speech"):
            open_at(tmp_path, "speach")
