"""A persistent cache of compiled programs, so that later runs start faster."""

import os
import platform
from pathlib import Path

import jax

# JAX evicts the oldest programs first.
_MAX_BYTES = 2 * 1024**3


def keep_programs() -> None:
    """Let JAX store compiled programs in the user's cache and load them from there.

    `JAX_COMPILATION_CACHE_DIR` sets another directory, and
    `JAX_ENABLE_COMPILATION_CACHE=false` disables the cache. A compiled program is code:
    keep it in the user's private directory, never in a workdir from someone else.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    # Machines that share a home directory may not run each other's programs.
    directory = Path(base) / "vqvae_jax" / "programs" / (platform.node() or "here")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:  # The home directory is read-only: compile each time.
        return
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_compilation_cache_max_size", _MAX_BYTES)
    # Loading a small program takes a tenth of the time of compiling it.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
