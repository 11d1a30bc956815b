"""Coordination of one program that runs in several processes.

JAX compiles one program for the devices of all processes, so each of them must call
the same functions in the same order. Files are different: all processes read a shared
workdir, and only the first one writes it.

In a single process these functions do nothing, and JAX's distributed runtime is not
started.
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

from vqvae_jax.runtime.errors import UserError, one_line, require

T = TypeVar("T")

# Seconds without a heartbeat after which a process is considered dead, and seconds that
# an ending process waits for the others: after success, and after an error.
_HEARTBEAT, _SHUTDOWN, _SHUTDOWN_ON_ERROR = 60, 60, 10
# Size in bytes of a message from one process to the others.
_MESSAGE = 1024


def is_launched_by_cluster() -> bool:
    """Return whether environment variables mark this process as one of several.

    Reads those that `jax.distributed.initialize` also reads: of a Slurm step, of Open
    MPI's mpirun and of Google's TPU pods; and `JAX_COORDINATOR_ADDRESS`.
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
    """Join several processes: afterwards `jax.devices()` lists the devices of all.

    Arguments that are None are detected from the cluster, as by
    `jax.distributed.initialize`.

    Args:
      coordinator: HOST:PORT of the first process, reachable from all.
      num_processes: number of processes.
      process_id: index of this process; 0 is the first.
      timeout: seconds to wait for the others.

    Raises:
      UserError: an option is missing or invalid, the port is in use, or not all
        processes connected in time. JAX may still wait for them: end this process.
    """
    _check(coordinator, num_processes, process_id)
    if process_id == 0 and coordinator is not None:
        _require_free(int(coordinator.rpartition(":")[2]))
    # JAX's SIGTERM handler would consume the signal and do nothing.
    jax.config.update("jax_enable_preemption_service", False)
    failures = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(
                coordinator,
                num_processes,
                process_id,
                # JAX aborts after its timeout; report an error first.
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
        f"timed out after {timeout} s waiting for {several} at "
        f"{coordinator or 'the coordinator'}: start --num_processes processes, each "
        "with a different --process_id and all with the --coordinator of process 0",
    )
    if failures:
        reason = one_line(failures[0], limit=300)
        raise UserError(
            f"cannot start {several} ({reason}): set --coordinator, --num_processes "
            "and --process_id unless the cluster provides them"
        ) from failures[0]
    _connect()
    # Only the first process prints.
    rich.get_console().quiet = not is_first()


def leave(code: int) -> NoReturn:
    """Exit this process with a code, whatever the others do.

    If all processes exit, they shut down together. Otherwise this one waits only
    briefly, and JAX ends the others.
    """
    if jax.distributed.is_initialized():
        shutdown = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        shutdown.start()
        shutdown.join(_SHUTDOWN_ON_ERROR)
        if shutdown.is_alive():
            sys.stdout.flush()
            os._exit(code)
    sys.exit(code)


def is_first() -> bool:
    """Return whether this is the process that writes files and logs."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait for all processes, so that the files they wrote can be read."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def own_rows(array: np.ndarray) -> np.ndarray:
    """Return this process's share `[B / processes, ...]` of rows that all hold."""
    size = len(array) // jax.process_count()
    return array[jax.process_index() * size :][:size]


def whole(rows: T) -> T:
    """Gather the rows of all processes, in process order, on each of them.

    Args:
      rows: a pytree of NumPy arrays `[b, ...]` with the same b in each process, or of
        arrays `[B, ...]` sharded over the devices of all processes.

    Returns:
      NumPy arrays `[B, ...]`.
    """
    return multihost_utils.process_allgather(rows, tiled=True)


def in_turn(work: Callable[[], T]) -> T:
    """Call `work` in the first process, then in the others, which find its results.

    `work` must not communicate between processes. An error in one of them stops all.

    Raises:
      UserError: `work` raised it in one of the processes.
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
        messages = _gather_messages(str(error or ""))
        if error is not None:
            raise error
        for process, message in enumerate(messages):
            require(not message, f"process {process} of this run: {message}")
    return result


def require_same(value: str, message: str) -> None:
    """Raise UserError in all processes unless all pass the same value."""
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

    JAX's service would share the port with another JAX service and mix up two runs.
    """
    with socket.socket() as listener:
        # Count a port whose last connection has just closed as free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as error:
            raise UserError(
                f"port {port} of --coordinator cannot be used here: {error.strerror}; "
                "give all processes another port"
            ) from error


def _connect() -> None:
    """Open the connections over which CPUs exchange arrays.

    Gloo waits half an hour for an array but only 30 s for a connection, which the first
    program that communicates opens. Processes may compile that program for longer than
    30 s; here all of them have just started.
    """
    barrier("start")
    mesh = Mesh(np.array(jax.devices()), ("data",))
    ones = jax.make_array_from_process_local_data(
        NamedSharding(mesh, PartitionSpec("data")),
        np.ones(jax.local_device_count(), np.int32),
    )
    add = jax.jit(jax.numpy.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))
    add(ones).block_until_ready()


def _gather_messages(message: str) -> list[str]:
    """Return the message of each process."""
    padded = np.zeros((1, _MESSAGE), np.uint8)
    encoded = message.encode()[:_MESSAGE]
    padded[0, : len(encoded)] = list(encoded)
    rows = whole(padded)
    return [bytes(row[row > 0]).decode(errors="replace") for row in rows]
