"""Spoken sentences with exact phone times, as a TFDS set that eSpeak NG speaks.

They stand where VCTK (section 4.3) cannot be had, and need no download. Speakers are
eSpeak's own variants of a voice: other formants, pitch, roughness and pace, one accent.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int16, Int32

from vqvae_jax.contrib.synthetic_speech import espeak
from vqvae_jax.contrib.synthetic_speech.sentences import sentences
from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.speech import audio

SAMPLE_RATE = 16_000
SILENCE = "SIL"
_PEAK = np.float32(0.7)

# Variants that sound like people and unlike each other, women and men mixed. None of
# those with breath, whose noise eSpeak makes of memory that it has not set: they alone
# sound different in each process.
_NAMES = """f1 m1 m2 f4 m3 m4 Andrea m5 m7 Annie m8 Lee anika Andy david aunty ed edward
belinda Gene Hugo grandma Denis michel linda gustave boris shelby norbert pablo steph
antonio Mario kaukovalta travis adam"""
_VARIANTS = _NAMES.split()
# A variant is heard again as another speaker, with another pitch and melody.
_PITCHES = ((50, 50), (30, 35), (70, 65), (40, 80))
_RATES = (160, 176, 152, 184, 168, 192)

# eSpeak's letters for American English, in the letters of the ARPA, where vowels that
# end in an R are phones of their own.
_ARPA = {
    "AA": "0 A:",
    "AAR": "A@",
    "AE": "a aa",
    "AH": "@ @2 @- V a#",
    "AO": "O: O2",
    "AOR": "O@ o@",
    "AW": "aU",
    "AY": "aI aI3 aI@",
    "B": "b",
    "CH": "tS",
    "D": "d",
    "DH": "D",
    "EH": "E",
    "EHR": "e@",
    "ER": "3 3:",
    "EY": "eI",
    "F": "f",
    "G": "g",
    "HH": "h",
    "IH": "I I2 I#",
    "IHR": "i@3",
    "IY": "i i: i@",
    "JH": "dZ",
    "K": "k",
    "L": "l @L",
    "M": "m",
    "N": "n",
    "NG": "N",
    "OW": "oU",
    "OY": "OI",
    "P": "p",
    "R": "r r-",
    "S": "s",
    "SH": "S",
    "T": "t t2 t#",
    "TH": "T",
    "UH": "U",
    "UHR": "U@",
    "UW": "u:",
    "V": "v",
    "W": "w",
    "Y": "j ;",
    "Z": "z",
    "ZH": "Z",
}
PHONES = (SILENCE, *_ARPA)
_FROM_ESPEAK = {e: arpa for arpa, letters in _ARPA.items() for e in letters.split()}
_STRESS = "',%=|"


@dataclasses.dataclass(kw_only=True)
class SpeechConfig(tfds.core.BuilderConfig):
    """How many speak, and how much.

    Attributes:
      speakers: how many; all of them are in every split.
      train_sentences: of each speaker, which no one else says.
      eval_sentences: the same, of validation and again of test.
      shared_sentences: of test, which every speaker says.
      seed: of the sentences.
    """

    speakers: int = 36
    train_sentences: int = 55
    eval_sentences: int = 2
    shared_sentences: int = 4
    seed: int = 0


class Speech(tfds.core.GeneratorBasedBuilder):
    """Utterances of 2 to 4 s at 16 kHz, each with speaker, sentence, text and phones.

    `phones` are (first sample, first sample after, index in
    `metadata["phone_names"]`), without gaps from the first sample to the last.
    `sentence` is the same number where the text is the same; no sentence is in two
    splits.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (
        SpeechConfig(name="english", description="An hour and a half to train on."),
        SpeechConfig(
            name="large",
            description="As many speakers as VCTK, and 12 hours to train on.",
            speakers=109,
            train_sentences=150,
        ),
        SpeechConfig(
            name="small",
            description="A quarter of an hour.",
            speakers=10,
            train_sentences=35,
        ),
        SpeechConfig(
            name="tiny",
            description="Half a minute, to try things out.",
            speakers=3,
            train_sentences=3,
            eval_sentences=1,
            shared_sentences=1,
        ),
    )

    def _info(self) -> tfds.core.DatasetInfo:
        names = [name for name, _ in speakers(self.builder_config.speakers)]
        return self.dataset_info_from_configs(
            description="Sentences of a small grammar, spoken by eSpeak NG.",
            homepage="https://github.com/espeak-ng/espeak-ng",
            features=tfds.features.FeaturesDict(
                {
                    # Numbers one by one would take twice the room and be slow to read.
                    "speech": tfds.features.Tensor(
                        shape=(None,), dtype=np.int16, encoding="zlib"
                    ),
                    "speaker": tfds.features.ClassLabel(names=names),
                    "sentence": tfds.features.Scalar(dtype=np.int32),
                    "text": tfds.features.Text(),
                    "phones": tfds.features.Tensor(shape=(None, 3), dtype=np.int32),
                }
            ),
            metadata=tfds.core.MetadataDict(
                sample_rate=SAMPLE_RATE, phone_names=PHONES
            ),
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict]]]:
        del dl_manager
        return {
            split: self._generate_examples(said)
            for split, said in _said(self.builder_config).items()
        }

    def _generate_examples(
        self, said: Sequence[Sequence[tuple[int, str]]]
    ) -> Iterator[tuple[int, dict]]:
        synthesizer = espeak.Synthesizer()
        voices = speakers(self.builder_config.speakers)
        key = 0
        for (name, voice), texts in zip(voices, said, strict=True):
            for sentence, text in texts:
                samples, phones = record(synthesizer, text, voice)
                yield (
                    key,
                    {
                        "speech": samples,
                        "speaker": name,
                        "sentence": sentence,
                        "text": text,
                        "phones": phones,
                    },
                )
                key += 1


def speakers(number: int) -> list[tuple[str, espeak.Voice]]:
    """Return the names and voices of the first `number` speakers.

    Raises:
      UserError: there are fewer.
    """
    most = len(_VARIANTS) * len(_PITCHES)
    require(
        1 <= number <= most, f"there are 1 to {most} speakers to choose from: {number}"
    )
    found = []
    for index in range(number):
        again, place = divmod(index, len(_VARIANTS))
        pitch, pitch_range = _PITCHES[again]
        voice = espeak.Voice(
            variant=_VARIANTS[place],
            pitch=pitch,
            pitch_range=pitch_range,
            rate=_RATES[(index + again) % len(_RATES)],
        )
        name = f"{_VARIANTS[place]}-{again + 1}" if again else _VARIANTS[place]
        found.append((name, voice))
    return found


def record(
    synthesizer: espeak.Synthesizer, text: str, voice: espeak.Voice
) -> tuple[Int16[np.ndarray, " t"], Int32[np.ndarray, "p 3"]]:
    """Return a text as a voice says it at 16 kHz, and its phones as `segments`.

    Every recording has the same peak, as loudness would give its speaker away.
    """
    spoken = synthesizer.say(text, voice)
    samples = audio.resample(spoken.audio, from_rate=espeak.RATE, to_rate=SAMPLE_RATE)
    samples = audio.to_int16(samples * (_PEAK / np.abs(samples).max()))
    return samples, segments(spoken.phonemes, length=len(samples))


def segments(
    phonemes: Sequence[espeak.Phoneme], *, length: int
) -> Int32[np.ndarray, "p 3"]:
    """Return (first sample, first sample after, index in `PHONES`) at 16 kHz.

    Args:
      phonemes: in eSpeak's letters and samples.
      length: of the recording at 16 kHz; where the last phone ends.

    Raises:
      UserError: eSpeak has a letter that is not known here.
    """
    # Before the first phone eSpeak is silent.
    starts, ids = [0], [PHONES.index(SILENCE)]
    for phoneme in phonemes:
        starts.append(round(phoneme.start * SAMPLE_RATE / espeak.RATE))
        ids.append(PHONES.index(_arpa(phoneme.name)))
    ends = np.minimum([*starts[1:], length], length)
    rows = np.stack([np.array(starts), ends, np.array(ids)], axis=1)
    rows = rows[rows[:, 0] < rows[:, 1]]
    # One silence, in however many parts eSpeak keeps it.
    is_new = np.append(True, (rows[1:, 2] != rows[:-1, 2]) | (rows[1:, 2] != ids[0]))
    first = np.flatnonzero(is_new)
    last = np.append(first[1:], len(rows)) - 1
    merged = np.stack([rows[first, 0], rows[last, 1], rows[first, 2]], axis=1)
    return merged.astype(np.int32)


def _arpa(phoneme: str) -> str:
    letters = phoneme.lstrip(_STRESS)
    if letters.startswith("_"):
        return SILENCE
    require(
        letters in _FROM_ESPEAK,
        f"eSpeak NG says {phoneme!r}, which is no phone known here; install the "
        "version of espeakng-loader in constraints.txt",
    )
    return _FROM_ESPEAK[letters]


def _said(config: SpeechConfig) -> dict[str, list[list[tuple[int, str]]]]:
    """Return for each split what each speaker says: numbers and texts of sentences."""
    own = {
        "train": config.train_sentences,
        "validation": config.eval_sentences,
        "test": config.eval_sentences,
    }
    total = config.shared_sentences + config.speakers * sum(own.values())
    numbered = enumerate(sentences(total, seed=config.seed))
    shared = [next(numbered) for _ in range(config.shared_sentences)]
    return {
        split: [
            [*(shared if split == "test" else ()), *(next(numbered) for _ in range(n))]
            for _ in range(config.speakers)
        ]
        for split, n in own.items()
    }
