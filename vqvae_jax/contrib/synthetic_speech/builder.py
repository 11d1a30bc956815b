"""A TFDS set of sentences synthesised by eSpeak NG, with exact phone times.

It replaces VCTK (section 4.3) where that is unavailable, and needs no download.
Speakers are eSpeak's variants of a voice: they differ in formants, pitch, roughness and
speaking rate, but not in accent.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int16, Int32

from vqvae_jax.contrib.synthetic_speech import espeak
from vqvae_jax.runtime.errors import require
from vqvae_jax.runtime.extras import imported

SAMPLE_RATE = 16_000
SILENCE = "SIL"
_PEAK = np.float32(0.7)
_FULL_SCALE = np.float32(2**15)

# Variants that sound human and distinct, female and male voices mixed. Variants with
# breath are excluded: eSpeak generates breath noise from uninitialised memory, so that
# they differ from process to process.
_NAMES = """f1 m1 m2 f4 m3 m4 Andrea m5 m7 Annie m8 Lee anika Andy david aunty ed edward
belinda Gene Hugo grandma Denis michel linda gustave boris shelby norbert pablo steph
antonio Mario kaukovalta travis adam"""
_VARIANTS = _NAMES.split()
# (pitch, pitch range); each reuse of a variant as another speaker takes the next.
_PITCHES = ((50, 50), (30, 35), (70, 65), (40, 80))
_RATES = (160, 176, 152, 184, 168, 192)

# ARPAbet phone -> eSpeak's symbols of American English. R-coloured vowels are separate
# phones.
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
_FROM_ESPEAK = {e: arpa for arpa, symbols in _ARPA.items() for e in symbols.split()}
_STRESS = "',%=|"

# A small grammar of sentences.
_TIMES = (
    "after lunch",
    "all day",
    "at noon",
    "before the storm",
    "by pure chance",
    "every evening",
    "for the fifth time",
    "in July",
    "last Thursday",
    "on a cold night",
    "this morning",
    "three years ago",
    "with great pleasure",
    "yesterday",
)
_WORDS = {
    "NAME": """Alice Andrew Barbara Charles Deborah Elizabeth Frank Georgia Howard Joy
        Julia Kevin Laura Matthew Nancy Oliver Peter Rachel Samuel Theodore Victor
        William Yolanda Zoe""",
    "PERSON": """baker boy captain child doctor driver farmer father gardener judge king
        lawyer mother neighbor nurse painter shepherd singer soldier student teacher
        thief visitor woman youth""",
    "THING": """boat book bottle bridge cage camera chair cloud coin cup drawing engine
        feather fish flower garden glove guitar hammer house jacket jewel kitchen ladder
        lamp letter machine mirror mountain needle notebook onion orange oven paper
        pencil picture pillow pocket roof rope sausage shadow shoe song spoon stone
        stove table television thread ticket tooth toy treasure tree umbrella vegetable
        village violin watch wheel whistle window zebra""",
    "KIND": """ancient beautiful big blue broken cheap clean cold dangerous dark empty
        famous foolish fresh gentle golden good green heavy huge large lazy little long
        loud narrow noisy old pure quick quiet rough round royal sharp short silver
        smooth soft strange strong thick thin tiny usual warm weird wide wild wooden
        yellow young""",
    "DEED": """admired brought carried caught chose cleaned counted covered described
        destroyed dropped enjoyed examined fixed followed forgot found hid ignored
        imagined kept lifted lost loved measured moved noticed opened painted praised
        pulled pushed recognized remembered repaired saw sold stole touched used washed
        watched wrapped""",
    "PLACE": "above behind beneath beside beyond near under without",
}
# The expansions of each word in capitals.
_LISTS = {"TIME": _TIMES} | {name: words.split() for name, words in _WORDS.items()}
_FORMS = (
    "The KIND PERSON DEED the THING TIME.",
    "NAME DEED the KIND THING PLACE the THING.",
    "The PERSON DEED my KIND THING, and NAME DEED the THING.",
    "NAME and the PERSON DEED your THING PLACE the KIND THING.",
    "Our KIND PERSON DEED this THING TIME.",
)


@dataclasses.dataclass(kw_only=True)
class SpeechConfig(tfds.core.BuilderConfig):
    """The numbers of speakers and sentences.

    Attributes:
      speakers: number of speakers; all of them are in every split.
      train_sentences: sentences per speaker in train, said by no other speaker.
      eval_sentences: the same for validation, and for test.
      shared_sentences: sentences of test that every speaker says.
      seed: seed of the sentences.
    """

    speakers: int = 36
    train_sentences: int = 55
    eval_sentences: int = 2
    shared_sentences: int = 4
    seed: int = 0


class Speech(tfds.core.GeneratorBasedBuilder):
    """Utterances of 2 to 4 s at 16 kHz with speaker, sentence, text and phones.

    `phones` has rows of (start sample, end sample, index in `metadata["phone_names"]`)
    that cover the utterance without gaps. `sentence` is equal for equal texts; no
    sentence is in two splits.
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
                    # Uncompressed integers would take twice the space and read slowly.
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
            split: self._generate_examples(texts)
            for split, texts in _texts(self.builder_config).items()
        }

    def _generate_examples(
        self, texts_per_speaker: Sequence[Sequence[tuple[int, str]]]
    ) -> Iterator[tuple[int, dict]]:
        synthesizer = espeak.Synthesizer()
        voices = speakers(self.builder_config.speakers)
        key = 0
        for (name, voice), texts in zip(voices, texts_per_speaker, strict=True):
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
      UserError: if there are fewer speakers.
    """
    most = len(_VARIANTS) * len(_PITCHES)
    require(1 <= number <= most, f"speakers must be in 1 ... {most}, got {number}")
    found = []
    for index in range(number):
        reuse, position = divmod(index, len(_VARIANTS))
        variant = _VARIANTS[position]
        pitch, pitch_range = _PITCHES[reuse]
        voice = espeak.Voice(
            variant=variant,
            pitch=pitch,
            pitch_range=pitch_range,
            rate=_RATES[(index + reuse) % len(_RATES)],
        )
        name = f"{variant}-{reuse + 1}" if reuse else variant
        found.append((name, voice))
    return found


def record(
    synthesizer: espeak.Synthesizer, text: str, voice: espeak.Voice
) -> tuple[Int16[np.ndarray, " t"], Int32[np.ndarray, "p 3"]]:
    """Synthesise a text at 16 kHz, and return the samples and the phone segments.

    Normalise the peak, so that loudness does not identify the speaker.
    """
    spoken = synthesizer.say(text, voice)
    soxr = imported("soxr", purpose="to speak data.name='speech'")
    scaled = spoken.audio.astype(np.float32) / _FULL_SCALE
    samples = soxr.resample(scaled, espeak.RATE, SAMPLE_RATE)
    samples = samples * (_PEAK / np.abs(samples).max()) * _FULL_SCALE
    samples = np.round(samples).astype(np.int16)
    return samples, segments(spoken.phonemes, length=len(samples))


def segments(
    phonemes: Sequence[espeak.Phoneme], *, length: int
) -> Int32[np.ndarray, "p 3"]:
    """Return rows of (start sample, end sample, index in `PHONES`) at 16 kHz.

    Args:
      phonemes: phonemes with eSpeak's symbols and sample positions.
      length: samples of the recording at 16 kHz, where the last phone ends.

    Raises:
      UserError: if eSpeak uses an unknown symbol.
    """
    # eSpeak is silent before the first phone.
    starts, ids = [0], [PHONES.index(SILENCE)]
    for phoneme in phonemes:
        starts.append(round(phoneme.start * SAMPLE_RATE / espeak.RATE))
        ids.append(PHONES.index(_arpa(phoneme.name)))
    ends = np.minimum([*starts[1:], length], length)
    rows = np.stack([np.array(starts), ends, np.array(ids)], axis=1)
    rows = rows[rows[:, 0] < rows[:, 1]]
    # Merge consecutive silences, which eSpeak splits into parts.
    is_new = np.append(True, (rows[1:, 2] != rows[:-1, 2]) | (rows[1:, 2] != ids[0]))
    first = np.flatnonzero(is_new)
    last = np.append(first[1:], len(rows)) - 1
    merged = np.stack([rows[first, 0], rows[last, 1], rows[first, 2]], axis=1)
    return merged.astype(np.int32)


def _arpa(phoneme: str) -> str:
    symbol = phoneme.lstrip(_STRESS)
    if symbol.startswith("_"):
        return SILENCE
    require(
        symbol in _FROM_ESPEAK,
        f"eSpeak NG returned the unknown phone {phoneme!r}; install the version of "
        "espeakng-loader in constraints.txt",
    )
    return _FROM_ESPEAK[symbol]


def _texts(config: SpeechConfig) -> dict[str, list[list[tuple[int, str]]]]:
    """Return the numbers and texts of the sentences of each split and speaker."""
    counts = {
        "train": config.train_sentences,
        "validation": config.eval_sentences,
        "test": config.eval_sentences,
    }
    total = config.shared_sentences + config.speakers * sum(counts.values())
    numbered = enumerate(sentences(total, seed=config.seed))
    shared = [next(numbered) for _ in range(config.shared_sentences)]
    return {
        split: [
            [*(shared if split == "test" else ()), *(next(numbered) for _ in range(n))]
            for _ in range(config.speakers)
        ]
        for split, n in counts.items()
    }


def sentences(number: int, *, seed: int) -> list[str]:
    """Return `number` distinct sentences, a prefix of any longer list of this seed."""
    # NumPy guarantees a stable stream only for the raw bits of a named generator.
    bits = np.random.PCG64(seed)
    # A dict, because a set does not preserve the order.
    found: dict[str, None] = {}
    while len(found) < number:
        found[_sentence(bits)] = None
    return list(found)


def _sentence(bits: np.random.PCG64) -> str:
    form = _choose(bits, _FORMS)
    return re.sub("[A-Z]{2,}", lambda word: _choose(bits, _LISTS[word[0]]), form)


def _choose(bits: np.random.PCG64, options: Sequence[str]) -> str:
    return options[int(bits.random_raw()) % len(options)]
