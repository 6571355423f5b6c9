"""``lru_cache`` where a signal's handler runs: in the main thread, also while that waits for another's call."""

from __future__ import annotations

import subprocess
import sys

from support.threads import PATIENCE

INTERRUPTED = """
import faulthandler, signal, threading
import nearcache

faulthandler.dump_traceback_later(30, exit=True)
main = threading.main_thread()
asked, finished, in_inner, in_slow = (threading.Event() for _ in range(4))
answers = []

@nearcache.lru_cache
def outer(x):
    return inner(x) if threading.current_thread() is main else "called by another"

@nearcache.lru_cache
def inner(x):
    in_inner.set()
    asked.wait()
    return outer(x)

@nearcache.lru_cache
def slow(x):
    if threading.current_thread() is not main:
        in_slow.set()
        finished.wait()
    return "slow"

def handle(*_):
    if not asked.is_set():
        asked.set()
        answers.append(slow(1))

def disturb():
    while inner.cache_info().misses < 2:
        asked.wait(0.001)
    while not asked.wait(0.01):
        signal.pthread_kill(main.ident, signal.SIGUSR1)

signal.signal(signal.SIGUSR1, handle)
for work in (lambda: (inner(1), finished.set()), lambda: slow(1), disturb):
    threading.Thread(target=work, daemon=True).start()
in_inner.wait()
in_slow.wait()
assert outer(1) == inner(1) == "called by another"
assert set(answers) == {"slow"}
"""


def test_memo_called_by_a_signal_handler_while_its_thread_waits_does_not_deadlock() -> None:
    """Whoever looks whether that thread may be waited for sees what it waited for before."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
