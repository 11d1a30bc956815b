"""Compare quantizers: the same networks, budget and bits, with each quantizer in turn.

workdir/results.json         every metric of every seed, by size K and quantizer
workdir/report.html          the metrics as tables and a plot
workdir/table.md             the tables in Markdown
workdir/figure.png           the plot
workdir/K/NAME/SEED/         one run
"""

import math
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vqvae_jax import options
from vqvae_jax.contrib.studies import runs
from vqvae_jax.experiment import Experiment, with_kinds
from vqvae_jax.options import require_choice
from vqvae_jax.quantizers import Quantizer
from vqvae_jax.report import figures
from vqvae_jax.report.page import Picture, Section, render
from vqvae_jax.runtime.errors import require
from vqvae_jax.workdir import Workdir

_SECTIONS = ("seeds", "names", "base", "quantizers")
_LEARNED = "test_bits_per_dim_learned_prior"
# Columns of a table: result, heading, digits.
_COLUMNS = (
    ("test_bits_per_dim_uniform_prior", "bits/dim, uniform prior", 3),
    (_LEARNED, "bits/dim, learned prior", 3),
    (f"{_LEARNED}_given_class", "bits/dim, learned prior, class known", 3),
    ("test_psnr_db", "PSNR (dB)", 2),
    ("codes_in_use", "codes in use (%)", 1),
    ("sample_class_accuracy", "samples recognised", 3),
    ("quantizer_step_ms", "quantizer, ms a step", 2),
    ("quantizer_step_mib", "quantizer, MiB a step", 1),
)
_PLOTTED = _COLUMNS[:5]
_REPEATS = 15

# Size K -> quantizer -> results of each seed, `{}` for a diverged one.
Measured = dict[str, dict[str, list[dict[str, float]]]]


def run(config: Mapping[str, Any], workdir: str, *, command: str = "") -> None:
    """Train a VQ-VAE and its prior with each quantizer and seed, and compare them.

    Args:
      config: `seeds`, their number; `base`, an experiment's config; `quantizers`, for
        each size K the `model.quantizer` sections to compare, by name, where all of one
        size have log2 K bits for a vector; `names`, of those to run, () for all.
      workdir: created if missing.
      command: command line, saved for the report.

    Raises:
      UserError: a config, the data or the workdir is invalid.
    """
    runs.require_sections(config, _SECTIONS)
    sizes = _selected(config)
    configs = {
        f"{size}/{name}": with_quantizer(config["base"], section)
        for size, sections in sizes.items()
        for name, section in sections.items()
    }
    experiments = runs.checked(config, _SECTIONS, configs)
    features = next(iter(experiments.values())).model.quantizer.features
    for name, experiment in experiments.items():
        _require_comparable(name, experiment.model.quantizer, features)
    directory = Workdir(workdir)
    directory.require_usable(config)
    directory.begin(config, command=command)
    runs.run_all(directory, configs, seeds=config["seeds"])
    costs = {name: _cost_of_a_step(each) for name, each in experiments.items()}
    measured = {
        size: {
            name: [
                _results_of(each, costs[f"{size}/{name}"])
                for each in runs.runs_of(directory, f"{size}/{name}", config["seeds"])
            ]
            for name in sections
        }
        for size, sections in sizes.items()
    }
    tables = {size: _table(by_name) for size, by_name in measured.items()}
    directory.write_json(
        directory.results,
        {
            "seeds": config["seeds"],
            "budget": runs.budget(config["base"], "training", "prior_training"),
            "sizes": measured,
        },
    )
    markdown = "\n\n".join(_markdown(size, table) for size, table in tables.items())
    directory.write_bytes(directory.path / "table.md", f"{markdown}\n".encode())
    figure = _figure(measured)
    directory.write_bytes(directory.path / "figure.png", figures.png(figure))
    rows = [["K", *next(iter(tables.values()))[0]]]
    rows += [[size, *row] for size, table in tables.items() for row in table[1:]]
    runs.publish(directory, _page(directory, config, figure, tables), rows)


def _selected(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the quantizers to run by size, the smallest size first."""
    of_sizes, names = config["quantizers"], tuple(config["names"])
    for size in of_sizes:
        require(size.isdecimal(), f"quantizers.{size} must be a number of codes K")
    known = dict.fromkeys(name for sections in of_sizes.values() for name in sections)
    require(bool(known), "quantizers is empty")
    for name in names:
        require_choice("names", name, known)
    sizes = {
        size: {
            name: of_sizes[size][name]
            for name in names or known
            if name in of_sizes[size]
        }
        for size in sorted(of_sizes, key=int)
    }
    return {size: sections for size, sections in sizes.items() if sections}


def with_quantizer(
    base: Mapping[str, Any], section: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the base's config with a `model.quantizer` section of any kind."""
    changes = {f"quantizer.{k}": v for k, v in options.flatten(section).items()}
    kinds = {f"model.{k}": v for k, v in changes.items()}
    return runs.with_model_options(with_kinds(base, kinds), changes)


def _require_comparable(name: str, quantizer: Quantizer, features: int) -> None:
    """Raise UserError unless a quantizer has the study's width and its size's bits."""
    size = name.partition("/")[0]
    bits = math.log2(int(size))
    require(
        quantizer.features == features,
        f"quantizers.{name.replace('/', '.')} takes {quantizer.features} features, the "
        f"first quantizer {features}",
    )
    require(
        math.isclose(quantizer.bits, bits),
        f"quantizers.{name.replace('/', '.')} has {quantizer.bits:.2f} bits for a "
        f"vector, the others of K = {size} have {bits:.2f}",
    )


def _results_of(workdir: Workdir, cost: Mapping[str, float]) -> dict[str, float]:
    """Return the results of a run in the table's columns; `{}` if it diverged."""
    if not workdir.results.exists():
        return {}
    results = workdir.read_results()
    share = results["codebook_active_codes"] / results["codebook_codes"]
    found = {**results, "codes_in_use": 100 * share} | cost
    if _LEARNED in found:
        found.pop(f"{_LEARNED}_given_class", None)
    return {name: found[name] for name, _, _ in _COLUMNS if name in found}


def _cost_of_a_step(experiment: Experiment) -> dict[str, float]:
    """Measure a quantizer's part of a training step: forward, backward and update.

    For the vectors of one batch, drawn from a normal distribution: the median time, and
    the memory that the compiled program needs beside its arguments and results.
    """
    quantizer, model = experiment.model.quantizer, experiment.model
    batch_key, init_key, key = jax.random.split(jax.random.key(0), 3)
    cells = (experiment.training.batch_size, *model.grid[:2])
    z_e = jax.random.normal(batch_key, (*cells, quantizer.features))
    state = jax.jit(quantizer.init)(init_key, z_e)

    def step(state, z_e):
        def loss(state, z_e):
            out = quantizer.quantize(state, z_e, key=key)
            return out.loss.sum() + jnp.square(out.z_q).sum(), out.codes

        gradients, codes = jax.grad(loss, (0, 1), has_aux=True)(state, z_e)
        return gradients, quantizer.update(state, z_e, codes, key=key)

    compiled = jax.jit(step).lower(state, z_e).compile()
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(compiled(state, z_e))
        seconds.append(time.perf_counter() - start)
    return {
        "quantizer_step_ms": 1e3 * float(np.median(seconds)),
        "quantizer_step_mib": compiled.memory_analysis().temp_size_in_bytes / 2**20,
    }


def _columns(by_name: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """Return the columns that at least one run has."""
    found = {key for seeds in by_name.values() for results in seeds for key in results}
    return [column for column in _COLUMNS if column[0] in found]


def _table(by_name: Mapping[str, list[dict[str, float]]]) -> list[list[str]]:
    """Return rows of text, the header first, the best learned prior next."""
    columns = _columns(by_name)
    require(bool(columns), "all quantizers of one size diverged with every seed")
    rows = [["quantizer", *(head for _, head, _ in columns)]]
    present = [key for key, _, _ in columns if key.startswith(_LEARNED)]
    learned = present[0] if present else _LEARNED
    order = sorted(
        by_name,
        # A quantizer that diverged has no mean, and comes last.
        key=lambda name: np.nan_to_num(
            runs.spread(by_name[name], learned).mean, nan=np.inf
        ),
    )
    for name in order:
        cells = [runs.cell(by_name[name], key, digits) for key, _, digits in columns]
        rows.append([name, *cells])
    return rows


def _markdown(size: str, table: list[list[str]]) -> str:
    head = [f"K = {size}", *table[0][1:]]
    lines = [head, ["---"] * len(head), *table[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _figure(measured: Measured) -> figures.Figure:
    present = {key for by_name in measured.values() for key, _, _ in _columns(by_name)}
    return figures.settings(
        {
            f"K = {size}": {
                name: {
                    head: [results[key] for results in seeds if key in results]
                    for key, head, _ in _PLOTTED
                    if key in present
                }
                for name, seeds in by_name.items()
            }
            for size, by_name in measured.items()
        }
    )


def _page(directory, config, figure, tables) -> str:
    budget = runs.budget(config["base"], "training", "prior_training")
    text = (
        f"Trained for {budget} each, {config['seeds']} seeds; mean and half the range "
        "over seeds, on the test split. All quantizers of one size have the same bits "
        "for each vector."
    )
    alt = "Each metric of each quantizer, one point per seed"
    return render(
        f"Quantizers: {directory.path.resolve().name}",
        results={},
        sections=[
            *(
                Section(f"K = {size}", text, [], table)
                for size, table in tables.items()
            ),
            Section("All sizes", "", [Picture(figures.svg(figure), alt)]),
        ],
        config=config,
        command=directory.read_command(),
    )
