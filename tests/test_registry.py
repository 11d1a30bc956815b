"""The registry: every row can be loaded, and nothing else branches on a kind."""

import ast
from pathlib import Path

import jax
import pytest
from launch_checks import python

from vqvae_jax import options, registry
from vqvae_jax.experiment import Experiment, default_config, training_section
from vqvae_jax.models.base import second_models
from vqvae_jax.runtime.errors import UserError

PACKAGE = Path(registry.__file__).parent
OF_DATA = {"image_shape": (8, 8, 1), "class_names": (), "speaker_names": ("ann", "bob")}
# As in a file of codes: lists, and entries that no model uses.
OF_CODES = {
    "grid": [4, 5, 1],
    "num_codes": 7,
    "class_names": ["a", "b"],
    "action_names": ["go", "stay"],
    "fingerprint": "0",
    "num_examples": 5,
}
PAIRS = [
    (kind, name) for kind, s in registry.MODELS.items() for name in s.second_stages
]


TABLES = (
    "MODELS",
    "SECOND_STAGES",
    "STUDIES",
    "IMAGE_SOURCES",
    "SPEECH_SOURCES",
    "EMBEDDED_SETS",
    "REPORT_SECTIONS",
    "COMMANDS",
)


def paths_in(row):
    """Return the import paths in a row, or in a table of rows."""
    if isinstance(row, dict | tuple):
        values = row.values() if isinstance(row, dict) else row
        return set().union(*map(paths_in, values))
    return {row} if str(row).startswith("vqvae_jax.") else set()


PATHS = sorted(set().union(*(paths_in(getattr(registry, t)) for t in TABLES)))


class TestPaths:
    @pytest.mark.parametrize("path", PATHS)
    def test_every_path_loads(self, path):
        assert registry.is_available(path)
        assert registry.load(path) is not None

    def test_every_row_has_a_path(self):
        for table in TABLES:
            rows = getattr(registry, table)
            values = rows.values() if isinstance(rows, dict) else rows
            assert all(paths_in(row) for row in values), table

    @pytest.mark.parametrize(
        "path",
        ["vqvae_jax.tasks.absent:Thing", "vqvae_jax.absent.inner:Thing", "absent"],
    )
    def test_a_missing_module_is_unavailable_and_raises(self, path):
        assert not registry.is_available(path)
        with pytest.raises(ModuleNotFoundError, match="absent"):
            registry.load(path)

    def test_a_path_without_an_attribute_is_the_module(self):
        assert registry.load("vqvae_jax.registry") is registry
        assert registry.load("vqvae_jax.registry:titles") is registry.titles

    def test_asking_whether_a_row_exists_imports_nothing_heavy(self):
        script = (
            "import sys; from vqvae_jax import registry; "
            "assert registry.is_available(registry.MODELS['vqvae'].model); "
            "print([m for m in ('jax', 'flax', 'grain', 'numpy') if m in sys.modules])"
        )
        done = python("-c", script, check=True)
        assert done.stdout.strip() == "[]"


class TestTitles:
    def test_every_stage_that_trains_has_its_own_title(self):
        titles = registry.titles()
        stages = [*registry.MODELS]
        for spec in registry.SECOND_STAGES.values():
            assert spec.variants.keys() == spec.titles.keys()
            stages += spec.variants
        assert sorted(titles) == sorted(stages)
        assert len(set(titles.values())) == len(stages)
        assert all(titles.values())

    def test_the_first_variant_of_a_second_stage_is_its_options(self):
        for name, spec in registry.SECOND_STAGES.items():
            assert next(iter(spec.variants.items())) == (name, "")


class TestDefaults:
    """Only shapes: nothing is computed."""

    @pytest.mark.parametrize("kind", registry.MODELS)
    def test_every_model_initialises_from_its_defaults(self, kind):
        cls = registry.load(registry.MODELS[kind].model)
        model = options.build(cls, options.defaults(cls), name="model", **OF_DATA)
        jax.eval_shape(model.init, jax.random.key(0), model.init_batch())

    @pytest.mark.parametrize("name", registry.SECOND_STAGES)
    def test_every_model_of_codes_initialises_from_its_defaults(self, name):
        models = second_models(name, {}, OF_CODES)
        assert models.keys() == registry.SECOND_STAGES[name].variants.keys()
        for model in models.values():
            jax.eval_shape(model.init, jax.random.key(0), model.init_batch())

    def test_sizes_come_from_the_codes_and_options_from_the_section(self):
        section = {"network": {"layers": 1, "channels": 4}, "label_dropout": 0.5}
        (prior,) = second_models("prior", section, OF_CODES).values()
        assert (prior.grid, prior.num_codes) == ((4, 5, 1), 7)
        assert prior.class_names == ("a", "b")
        assert (prior.network.layers, prior.network.channels) == (1, 4)
        assert prior.label_dropout == 0.5


def config_of(kind, second_stage=None):
    """Return a config of defaults and of a set with some name."""
    config = default_config(kind, second_stage)
    config["data"]["name"] = "some_set"
    return config


class TestSecondStages:
    def test_each_follows_one_kind(self):
        assert sorted(name for _, name in PAIRS) == sorted(registry.SECOND_STAGES)
        for spec in registry.MODELS.values():
            assert spec.second_stages or not spec.requires_second_stage

    @pytest.mark.parametrize(("kind", "name"), PAIRS)
    def test_its_sections_choose_it(self, kind, name):
        found = Experiment.from_config(config_of(kind, name))
        assert (found.kind, found.second_stage) == (kind, name)
        assert found.second_spec is registry.SECOND_STAGES[name]

    @pytest.mark.parametrize(("kind", "name"), PAIRS)
    def test_one_of_its_sections_alone_names_the_missing_one(self, kind, name):
        training = training_section(name)
        for missing in (name, training):
            config = config_of(kind, name)
            del config[missing]
            with pytest.raises(UserError, match=rf"^{missing} is missing from the"):
                Experiment.from_config(config)

    @pytest.mark.parametrize(
        "kind", [k for k, s in registry.MODELS.items() if not s.requires_second_stage]
    )
    def test_models_that_require_none_run_alone(self, kind):
        assert Experiment.from_config(config_of(kind)).second_stage is None

    @pytest.mark.parametrize(
        ("second", "sections", "message"),
        [
            (
                None,
                (),
                "^prior is missing from the config; a vqvae .* exactly one of: prior",
            ),
            (None, ("sequence_prior",), "^prior is missing from the config"),
            ("prior", ("video",), "^prior and video are both in the config; a vq"),
            ("prior", ("video_training",), "^prior and video are both in the config"),
        ],
    )
    def test_none_and_two_raise(self, second, sections, message):
        config = config_of("vqvae", second) | {name: {} for name in sections}
        with pytest.raises(UserError, match=message):
            Experiment.from_config(config)

    def test_sections_of_another_kind_raise(self):
        config = config_of("vae") | {"prior": {}}
        with pytest.raises(UserError, match=r"^prior is not a section of a vae's"):
            Experiment.from_config(config)


def branches_on_a_kind(tree):
    """Yield the lines that compare a `kind` with constants, or match on it."""

    def is_kind(node):
        return getattr(node, "id", getattr(node, "attr", None)) == "kind"

    def is_constant(node):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            return any(map(is_constant, node.elts))
        if isinstance(node, ast.Constant):
            return isinstance(node.value, str)
        return isinstance(node, ast.Name) and node.id.lstrip("_").isupper()

    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            if any(map(is_kind, operands)) and any(map(is_constant, operands)):
                yield node.lineno
        if isinstance(node, ast.Match) and is_kind(node.subject):
            yield node.lineno


@pytest.mark.parametrize(
    ("line", "is_branch"),
    [
        ("x = 1 if model.kind == 'vqvae' else 2", True),
        ("x = kind in ('vae', 'gan')", True),
        ("x = kind not in _IMAGES", True),
        ("match kind: \n  case 'vae': pass", True),
        ("x = kind in registry.MODELS", False),
        ("x = [kind for kind in registry.MODELS]", False),
        ("x = stage == experiment.kind", False),
        ("x = key != 'kind'", False),
    ],
)
def test_branches_are_found(line, is_branch):
    assert bool(list(branches_on_a_kind(ast.parse(line)))) == is_branch


def test_only_the_registry_branches_on_a_kind():
    found = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "registry.py"
        for line in branches_on_a_kind(ast.parse(path.read_text("utf-8")))
    ]
    assert not found
