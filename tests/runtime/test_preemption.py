"""Effects of a signal outside and inside of `deferred`, and on work that hangs."""

import os
import signal
import subprocess

import pytest
from launch_checks import python

from vqvae_jax.runtime import preemption

SIGNALS = pytest.mark.parametrize("number", preemption.SIGNALS)


def test_without_a_signal_nothing_is_raised():
    with preemption.handle_signals(), preemption.deferred():
        preemption.check()
    assert list(preemption.checked("abc")) == ["a", "b", "c"]


@SIGNALS
def test_a_signal_is_raised_at_once(number):
    before = signal.getsignal(number)
    done = []

    def work():
        with preemption.handle_signals():
            signal.raise_signal(number)
            done.append("continued")

    with pytest.raises(preemption.Preempted):
        work()
    assert not done
    assert signal.getsignal(number) == before
    assert not preemption.requested()


@SIGNALS
def test_a_deferred_signal_is_raised_by_check(number):
    done = []

    def work():
        with preemption.deferred():
            signal.raise_signal(number)
            # Send it twice, as `timeout` does.
            signal.raise_signal(number)
            done.append("continued")
            for item in preemption.checked("abc"):
                done.append(item)

    with preemption.handle_signals():
        with pytest.raises(preemption.Preempted):
            work()
        assert done == ["continued"]
        with pytest.raises(preemption.Preempted), preemption.deferred():
            done.append("not raised before the end")
    assert done[1:] == ["not raised before the end"]


def test_libraries_that_catch_exception_do_not_catch_it():
    assert not issubclass(preemption.Preempted, Exception)


# Loaded by its path, because the package imports JAX.
CHILD = """
import hashlib, importlib.util, os, signal, threading, time
spec = importlib.util.spec_from_file_location("preemption", {path!r})
preemption = importlib.util.module_from_spec(spec)
spec.loader.exec_module(preemption)
preemption._SECONDS = 1.0

def send():
    timer = threading.Timer(0.2, os.kill, (os.getpid(), {number:d}))
    timer.daemon = True
    timer.start()

with preemption.handled(["python", "launch.py", "--config=a b.py"]):
    {work}
print("completed")
"""


def child(
    work: str, number: int = signal.SIGTERM, **options
) -> subprocess.CompletedProcess:
    code = CHILD.format(work=work, number=number, path=preemption.__file__)
    return python("-c", code, stderr=subprocess.PIPE, timeout=60, **options)


RESUME = "resume with: python launch.py '--config=a b.py'\n"
CUT_OFF = "interrupted, unfinished work is lost; "


@pytest.mark.parametrize(
    ("work", "line"),
    [
        ("send(); time.sleep(60)", "interrupted; "),
        (
            "send(); preemption._is_deferred.set()\n"
            "    while not preemption.requested(): time.sleep(0.01)\n"
            "    raise preemption.Preempted('x is saved at step 3 of 4')",
            "interrupted, x is saved at step 3 of 4; ",
        ),
        # Work that never calls `check`, a long call of C code,
        ("preemption._is_deferred.set(); send(); time.sleep(60)", CUT_OFF),
        ("send(); hashlib.pbkdf2_hmac('sha1', b'', b'', 2**31 - 1)", CUT_OFF),
        # and code that catches the exception are ended too.
        ("send()\n    try: time.sleep(60)\n    except: time.sleep(60)", CUT_OFF),
    ],
)
@SIGNALS
def test_the_process_exits_with_the_code_of_shells_and_prints_how_to_resume(
    work, line, number
):
    found = child(work, number, stdout=subprocess.PIPE)
    code = {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert found.returncode == code, found.stderr
    assert found.stdout == line + RESUME
    assert found.stderr == ""


@pytest.mark.parametrize(("work", "code"), [("pass", 0), ("os._exit(3)", 3)])
def test_without_a_signal_the_exit_code_is_unchanged(work, code):
    found = child(work, stdout=subprocess.PIPE)
    assert found.returncode == code
    assert found.stdout == ("completed\n" if code == 0 else "")


def test_a_closed_stdout_is_ignored():
    reader, writer = os.pipe()
    os.close(reader)
    found = child("send(); time.sleep(60)", stdout=writer)
    os.close(writer)
    assert found.returncode == 143, found.stderr
