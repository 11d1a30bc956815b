"""Any change of a config is accepted, or refused in one line before work starts."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqvae_jax.experiment import Experiment
from vqvae_jax.runtime.errors import UserError

NAMES = (
    "digits",
    "cifar",
    "cifar:gan",
    "imagenet",
    "maze",
    "maze:global",
    "maze_video",
    "speech:small",
    "an4:unconditional_small",
)
# JSON values, and numbers at the limits of integer and float types.
EDGES = (0, -1, 1, 2**31, 2**63, 10**400, 1e-300, 1e300, float("nan"), float("inf"))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(EDGES),
    st.text(max_size=100),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def configs(make_config):
    """Configs as JSON."""
    return [json.dumps(make_config(name, {})) for name in NAMES]


def refusal(config) -> str:
    """Return why a config is refused, "" if it is accepted."""
    try:
        Experiment.from_config(config)
    except UserError as error:
        return str(error)
    return ""


def change(config: dict, data) -> None:
    """Set, remove or add a value in a section at any depth of a config."""
    section = config
    key = data.draw(st.sampled_from(sorted(section)))
    while isinstance(section[key], dict) and section[key] and data.draw(st.booleans()):
        section = section[key]
        key = data.draw(st.sampled_from(sorted(section)))
    match data.draw(st.sampled_from(("set", "remove", "add"))):
        case "set":
            section[key] = data.draw(VALUES)
        case "remove":
            del section[key]
        case "add":
            section[data.draw(st.text(max_size=20))] = data.draw(VALUES)


@given(st.data())
def test_a_changed_config_is_accepted_or_refused_in_one_line(configs, data):
    config = json.loads(data.draw(st.sampled_from(configs)))
    for _ in range(data.draw(st.integers(1, 3))):
        if config:
            change(config, data)
    before = copy.deepcopy(config)
    message = refusal(config)
    assert len(message.splitlines()) <= 1
    assert len(message) < 1500
    assert repr(config) == repr(before)


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=4))
def test_another_mapping_is_refused_in_one_line(config):
    assert len(refusal(config).splitlines()) == 1
