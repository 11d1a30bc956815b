"""Compiled programs are stored in the user's cache and loaded from there."""

import os
from pathlib import Path

import jax
import pytest
from launch_checks import python

from vqvae_jax.runtime import compilation

_OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)
# Counts the cache events that JAX reports while it compiles a program, one that takes
# seconds because the cache skips programs that compile fast.
_PROGRAM = """
import collections, jax, jax.numpy as jnp
from vqvae_jax.runtime import compilation
events = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: events.update([event]))
compilation.keep_programs()


@jax.jit
def f(x):
    for shift in range(100):
        x = jnp.sort(jnp.roll(jnp.sin(x @ x.T), shift, 0), axis=0) @ x
    return x


f(jnp.eye(8)[0:4])
print(events["/jax/compilation_cache/cache_hits"] > 0)
"""


@pytest.fixture(autouse=True)
def unset_cache(monkeypatch):
    """Disable JAX's cache, as by default."""
    before = {name: getattr(jax.config, name) for name in _OPTIONS}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_second_process_loads_what_the_first_compiled(tmp_path):
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    runs = [python("-c", _PROGRAM, env=env, check=True) for _ in range(2)]
    found = [each.stdout.strip() for each in runs]
    assert found == ["False", "True"]


def test_the_default_directory_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compilation.keep_programs()
    directory = Path(jax.config.jax_compilation_cache_dir)
    assert directory.parent == tmp_path / "vqvae_jax" / "programs"
    assert directory.stat().st_mode & 0o077 == 0


def test_a_configured_directory_is_kept(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    compilation.keep_programs()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)


def test_a_read_only_home_disables_the_cache(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    compilation.keep_programs()
    assert jax.config.jax_compilation_cache_dir is None
