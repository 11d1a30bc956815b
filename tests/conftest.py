"""Eight CPU devices, checked shapes, strict rank promotion: set before JAX starts."""

# ruff: noqa: E402

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    # Programs here run for milliseconds; optimising them takes most of the time.
    + " --xla_backend_optimization_level=0"
    # On a busy machine a device may wait long for another.
    + " --xla_cpu_collective_call_terminate_timeout_seconds=300"
)

import jaxtyping

_hook = jaxtyping.install_import_hook("vqvae_jax", "beartype.beartype")
_hook.__enter__()

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")

import time
from pathlib import Path

import hypothesis
import pytest

pytest_plugins = (
    "command_fixtures",
    "model_fixtures",
    "page_fixtures",
    "process_fixtures",
    "run_fixtures",
)

# The same examples each time, however busy the machine is.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None
)
hypothesis.settings.load_profile("repeatable")

_START = time.monotonic()

# A minute of tests of every room, for the edit loop.
_SMOKE = (
    "quantizers/test_vq.py",
    "quantizers/test_ema.py",
    "likelihoods/test_gaussian.py",
    "likelihoods/test_categorical.py",
    "networks/test_pixelcnn.py",
    "sampling/test_categorical.py",
    "data/test_source.py",
    "training/test_config.py",
    "runtime/test_terminal.py",
    "cli/test_arguments_and_main.py",
    "report/test_page.py",
    "contrib/codec/test_stream.py",
    "test_architecture.py",
    "test_options.py",
    "test_registry.py",
    "test_docs.py",
    "test_readme.py",
)


def pytest_addoption(parser):
    parser.addoption(
        "--time-limit",
        type=float,
        default=float("inf"),
        metavar="SECONDS",
        help="skip the tests that would start later than this",
    )
    parser.addoption(
        "--fuzz-seconds",
        type=float,
        default=60,
        metavar="SECONDS",
        help="how long tests/test_fuzz.py tries random inputs",
    )


def pytest_collection_modifyitems(items):
    folder = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(folder).as_posix()
        is_slow = item.get_closest_marker("slow") is not None
        if path.startswith(_SMOKE) and not is_slow:
            item.add_marker("smoke")


def pytest_runtest_setup(item):
    limit = item.config.getoption("--time-limit")
    if time.monotonic() - _START > limit:
        pytest.skip(f"the limit of {limit:g} s has passed")
