"""What a signal does: outside and inside of training, and to what hangs."""

import os
import signal
import subprocess
import sys

import pytest

from vqvae_jax.runtime import preemption

SIGNALS = pytest.mark.parametrize("number", preemption.SIGNALS)


def test_without_a_signal_nothing_happens():
    with preemption.listening(), preemption.deferred():
        preemption.check()
    assert list(preemption.checked("abc")) == ["a", "b", "c"]


@SIGNALS
def test_a_signal_is_raised_at_once(number):
    before = signal.getsignal(number)
    done = []

    def work():
        with preemption.listening():
            signal.raise_signal(number)
            done.append("went on")

    with pytest.raises(preemption.Interrupted):
        work()
    assert not done
    assert signal.getsignal(number) == before
    assert not preemption.has_come()


@SIGNALS
def test_it_waits_where_it_is_deferred(number):
    done = []

    def work():
        with preemption.deferred():
            signal.raise_signal(number)
            # Sent once more, as `timeout` does.
            signal.raise_signal(number)
            done.append("went on")
            for item in preemption.checked("abc"):
                done.append(item)

    with preemption.listening():
        with pytest.raises(preemption.Interrupted):
            work()
        assert done == ["went on"]
        with pytest.raises(preemption.Interrupted), preemption.deferred():
            done.append("not raised before the end")
    assert done[1:] == ["not raised before the end"]


def test_no_library_takes_it_for_its_own():
    assert not issubclass(preemption.Interrupted, Exception)


# By its path: the package would import JAX.
CHILD = """
import hashlib, importlib.util, os, signal, threading, time
spec = importlib.util.spec_from_file_location("interruption", {path!r})
interruption = importlib.util.module_from_spec(spec)
spec.loader.exec_module(interruption)
interruption._SECONDS = 1.0

def told():
    signal_it = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    signal_it.daemon = True
    signal_it.start()

with interruption.handled(["launch.py", "--config=a b.py"]):
    {what}
print("to its end")
"""


def child(what: str, **options) -> subprocess.CompletedProcess:
    code = CHILD.format(what=what, path=preemption.__file__)
    return subprocess.run(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        **options,
    )


RESUME = "resume with: python launch.py '--config=a b.py'\n"
CUT_OFF = "interrupted, what was under way is left; "


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("told(); time.sleep(60)", "interrupted; "),
        (
            "told(); interruption._is_deferred.set()\n"
            "    while not interruption.has_come(): time.sleep(0.01)\n"
            "    raise interruption.Interrupted('x is saved at step 3 of 4')",
            "interrupted, x is saved at step 3 of 4; ",
        ),
        # What does not listen is ended all the same, as is one call of C code,
        ("interruption._is_deferred.set(); told(); time.sleep(60)", CUT_OFF),
        ("told(); hashlib.pbkdf2_hmac('sha1', b'', b'', 2**31 - 1)", CUT_OFF),
        # and who takes the exception for one of their own.
        ("told()\n    try: time.sleep(60)\n    except: time.sleep(60)", CUT_OFF),
    ],
)
def test_the_process_ends_with_code_0_and_says_how_to_resume(what, line):
    found = child(what, stdout=subprocess.PIPE)
    assert found.returncode == 0, found.stderr
    assert found.stdout == line + RESUME
    assert found.stderr == ""


@pytest.mark.parametrize(("what", "code"), [("pass", 0), ("os._exit(3)", 3)])
def test_a_process_that_ends_by_itself_is_left_alone(what, code):
    found = child(what, stdout=subprocess.PIPE)
    assert found.returncode == code
    assert found.stdout == ("to its end\n" if code == 0 else "")


def test_where_nobody_reads_it_ends_too():
    reader, writer = os.pipe()
    os.close(reader)
    found = child("told(); time.sleep(60)", stdout=writer)
    os.close(writer)
    assert found.returncode == 0, found.stderr
