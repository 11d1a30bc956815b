"""Distinct sentences from a small grammar, for the speakers of `speech`."""

import re
from collections.abc import Sequence

import numpy as np

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
