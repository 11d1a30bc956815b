"""One program in several processes: who is first, who waits for whom, what all know.

JAX compiles one program for the devices of all processes, so that each of them has to
call the same functions in the same order. Files are another matter: all processes read
a workdir that they share, and the first one writes it.

In one process nothing here does anything, and JAX's distributed runtime is not started.
"""

import os
import socket
import sys
import threading
import zlib
from collections.abc import Callable
from typing import NoReturn, TypeVar

import jax
import numpy as np
import rich
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vqvae_jax.runtime.errors import UserError, require

T = TypeVar("T")

# Seconds after which a process that says nothing more is taken for dead, and for which
# one that ends waits for the others to end too: well, or with an error.
_HEARTBEAT, _SHUTDOWN, _FAREWELL = 60, 60, 10
# Bytes of a message from one process to the others.
_MESSAGE = 1024


def is_launched_by_cluster() -> bool:
    """Say whether a cluster's variables tell this process that it is one of several.

    Those that `jax.distributed.initialize` reads too: of a step of Slurm, Open MPI's
    mpirun and Google's TPU pods; or `JAX_COORDINATOR_ADDRESS`.
    """
    tasks = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    hosts = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
    return (
        any(int(os.environ.get(name) or 1) > 1 for name in tasks)
        or any("," in os.environ.get(name, "") for name in hosts)
        or "JAX_COORDINATOR_ADDRESS" in os.environ
    )


def start(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = 300,
) -> None:
    """Become one of several processes: from now on `jax.devices()` are those of all.

    What is None is asked of the cluster, as `jax.distributed.initialize` does.

    Args:
      coordinator: HOST:PORT of the first process, reached by all.
      num_processes: how many there are.
      process_id: which one this is; 0 is the first.
      timeout: seconds to wait for the others.

    Raises:
      UserError: an option is missing or cannot be, the port is in use, or not all
        processes came in time. JAX may still wait for them: the process has to end.
    """
    _check(coordinator, num_processes, process_id)
    if process_id == 0 and coordinator is not None:
        _require_free(int(coordinator.rpartition(":")[2]))
    # Its handler of SIGTERM would take the signal and do nothing.
    jax.config.update("jax_enable_preemption_service", False)
    failures = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(
                coordinator,
                num_processes,
                process_id,
                # When its time is up, JAX aborts; here an error is to be told first.
                initialization_timeout=2 * timeout + 60,
                heartbeat_timeout_seconds=_HEARTBEAT,
                shutdown_timeout_seconds=_SHUTDOWN,
            )
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=initialize, daemon=True)
    thread.start()
    thread.join(timeout)
    several = f"{num_processes or 'all'} processes"
    require(
        not thread.is_alive(),
        f"not {several} came together at {coordinator or 'the coordinator'} within "
        f"{timeout} s: start as many as --num_processes says, each with its own "
        "--process_id and all with the --coordinator of process 0",
    )
    if failures:
        reason = " ".join(str(failures[0]).split())[:300]
        raise UserError(
            f"{several} cannot start ({reason}): give --coordinator, --num_processes "
            "and --process_id where no cluster says them"
        ) from failures[0]
    _connect()
    # What all would say, one says.
    rich.get_console().quiet = not is_first()


def leave(code: int) -> NoReturn:
    """End this process with an exit code, whatever the others do.

    Where all end, they do it together. Otherwise this process does not wait for long,
    and JAX ends the others.
    """
    if jax.distributed.is_initialized():
        farewell = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        farewell.start()
        farewell.join(_FAREWELL)
        if farewell.is_alive():
            sys.stdout.flush()
            os._exit(code)
    sys.exit(code)


def is_first() -> bool:
    """Say whether this is the process that writes files and logs."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until all processes are here, and what they have written can be read."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def own_rows(array: np.ndarray) -> np.ndarray:
    """Return this process's share `[B / processes, ...]` of rows that all have."""
    size = len(array) // jax.process_count()
    return array[jax.process_index() * size :][:size]


def whole(rows: T) -> T:
    """Return the rows of all processes in their order, to each of them.

    Args:
      rows: a pytree of NumPy arrays `[b, ...]`, equally many in each process; or of
        arrays `[B, ...]` over the devices of all.

    Returns NumPy arrays `[B, ...]`.
    """
    return multihost_utils.process_allgather(rows, tiled=True)


def in_turn(work: Callable[[], T]) -> T:
    """Let the first process do something, then the others, who find what it left.

    `work` must not need the other processes. What stops one of them stops all.

    Raises:
      UserError: one of them raised it.
    """
    if jax.process_count() == 1:
        return work()
    for is_my_turn in (is_first(), not is_first()):
        error = None
        if is_my_turn:
            try:
                result = work()
            except UserError as raised:
                error = raised
        messages = _messages(str(error or ""))
        if error is not None:
            raise error
        for process, message in enumerate(messages):
            require(not message, f"process {process} of this run: {message}")
    return result


def require_same(value: str, message: str) -> None:
    """Raise UserError, in all processes, unless all have the same value."""
    if jax.process_count() > 1:
        digest = np.array([zlib.crc32(value.encode())], np.uint32)
        require(len(np.unique(whole(digest))) == 1, message)


def _check(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    if coordinator is not None:
        host, _, port = coordinator.rpartition(":")
        require(
            bool(host) and port.isdecimal() and 0 < int(port) < 2**16,
            f"--coordinator={coordinator} must be HOST:PORT of process 0",
        )
    if num_processes is not None:
        require(
            num_processes >= 1,
            f"--num_processes must be at least 1, got {num_processes}",
        )
    if num_processes is not None and process_id is not None:
        require(
            0 <= process_id < num_processes,
            f"--process_id must be in 0 ... {num_processes - 1} with "
            f"--num_processes={num_processes}, got {process_id}",
        )


def _require_free(port: int) -> None:
    """Raise UserError if another program listens on a port.

    JAX's own service would share it with one of its kind, and mix two runs up.
    """
    with socket.socket() as listener:
        # A port whose last connection has just been closed is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as error:
            raise UserError(
                f"port {port} of --coordinator cannot be used here: {error.strerror}; "
                "give all processes another one"
            ) from error


def _connect() -> None:
    """Make the connections over which CPUs exchange arrays.

    Gloo waits half an hour for an array, but only 30 s for a connection, which the
    first program that needs one makes: too short where processes compile for longer
    than that, not here, where all of them have just arrived.
    """
    barrier("start")
    mesh = Mesh(np.array(jax.devices()), ("data",))
    ones = jax.make_array_from_process_local_data(
        NamedSharding(mesh, PartitionSpec("data")),
        np.ones(jax.local_device_count(), np.int32),
    )
    add = jax.jit(jax.numpy.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))
    add(ones).block_until_ready()


def _messages(own: str) -> list[str]:
    """Return what each process says."""
    padded = np.zeros((1, _MESSAGE), np.uint8)
    encoded = own.encode()[:_MESSAGE]
    padded[0, : len(encoded)] = list(encoded)
    rows = whole(padded)
    return [bytes(row[row > 0]).decode(errors="replace") for row in rows]
