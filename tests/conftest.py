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


def pytest_runtest_setup(item):
    limit = item.config.getoption("--time-limit")
    if time.monotonic() - _START > limit:
        pytest.skip(f"the limit of {limit:g} s has passed")
