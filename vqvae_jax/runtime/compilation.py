"""Compiled programs, kept on disk, so that the next run starts without compiling."""

import os
import platform
from pathlib import Path

import jax

# Older programs are dropped first.
_MAX_BYTES = 2 * 1024**3


def keep_programs() -> None:
    """Let JAX keep compiled programs in the user's cache, and read them from there.

    `JAX_COMPILATION_CACHE_DIR` names another directory, and
    `JAX_ENABLE_COMPILATION_CACHE=false` keeps none. A compiled program is code: the
    directory is the user's own, never a workdir that came from somebody else.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    # A home may be shared by machines that do not run each other's programs.
    directory = Path(base) / "vqvae_jax" / "programs" / (platform.node() or "here")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:  # A home that cannot be written to: compile each time.
        return
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_compilation_cache_max_size", _MAX_BYTES)
    # Reading a small program takes a tenth of the time that compiling it takes.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
