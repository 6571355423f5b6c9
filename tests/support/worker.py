"""Python processes under a test's control.

A :class:`Worker` runs code of the test's choice in a fresh interpreter and answers requests, one JSON line
each: the way to show what one process sees of another's doing, and what is left when it is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent

# The protocol has descriptors of its own, so that whatever the code prints cannot be taken for an answer.
_MAIN = """
import json, os, sys, traceback
requests = os.fdopen(os.dup(0), encoding="utf-8")
answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(2, 1)
scope = {"__name__": "worker"}

def perform(request):
    if "code" in request:
        exec(compile(request["code"], "<worker>", "exec"), scope)
        return None
    if "expression" in request:
        return eval(compile(request["expression"], "<worker>", "eval"), scope)
    return scope[request["call"]](*request["args"], **request["kwargs"])

def answer(request):
    try:
        reply = {"value": perform(request)}
        return json.dumps(reply)
    except Exception as error:
        return json.dumps({
            "error": type(error).__name__, "message": str(error), "traceback": traceback.format_exc(),
        })

for line in requests:
    print(answer(json.loads(line)), file=answers, flush=True)
"""


class WorkerError(AssertionError):
    """The code in the worker raised, or the worker ended.

    Attributes:
        kind: Name of the exception's class in the worker; empty when the worker ended.
        message: ``str()`` of that exception.
    """

    def __init__(self, kind: str, message: str, details: str) -> None:
        super().__init__(f"{kind}: {message}\n{details}")
        self.kind = kind
        self.message = message


class Worker:
    """A Python process that runs ``code`` and then does what :meth:`call`, :meth:`run` and :meth:`eval` ask.

    Args:
        code: Top level code; what it defines can be called. The tests' ``support`` package can be imported.
        env: Changes to the environment; None removes a variable.
        timeout: Seconds to wait for any one answer.
        new_session: Start it in a session of its own, as a daemon or another terminal would be.
    """

    def __init__(
        self,
        code: str = "",
        *,
        env: dict[str, str | None] | None = None,
        timeout: float = 30.0,
        new_session: bool = False,
    ) -> None:
        self.timeout = timeout
        self._buffer = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _MAIN],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=_environment(env or {}),
                start_new_session=new_session,
                bufsize=0,
            )
        except BaseException:
            self._errors.close()
            raise
        self._code_pending = bool(code)
        if code:
            self._send({"code": code})

    # -- requests --------------------------------------------------------------------------------------------

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function that the code defined; arguments and result travel as JSON."""
        self.send(name, *args, **kwargs)
        return self.receive()

    def send(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        """Ask as :meth:`call` does, but do not wait: several workers can then be busy at once."""
        self._send({"call": name, "args": args, "kwargs": kwargs})

    def run(self, code: str) -> None:
        """Execute statements at the top level."""
        self._send({"code": code})
        self.receive()

    def eval(self, expression: str) -> Any:
        """Return the value of an expression."""
        self._send({"expression": expression})
        return self.receive()

    def receive(self, timeout: float | None = None) -> Any:
        """Return the answer to the oldest open request; WorkerError if the code raised or it ended."""
        self.ready()
        reply = json.loads(self._read_line(self.timeout if timeout is None else timeout))
        if "error" in reply:
            raise WorkerError(reply["error"], reply["message"], reply["traceback"])
        return reply["value"]

    def ready(self) -> Worker:
        """Wait until the code given at the start has run."""
        if self._code_pending:
            self._code_pending = False
            self.receive()
        return self

    # -- life ------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Return whether the process exists."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it by SIGKILL: no ``finally``, no ``atexit``."""
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def finish(self, timeout: float | None = None) -> int:
        """Let it end as a program does at the end of its input; return its exit status."""
        if self._process.stdin and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        return self._process.wait(self.timeout if timeout is None else timeout)

    def errors(self) -> str:
        """Return what it wrote to standard output and standard error."""
        self._errors.seek(0)
        return self._errors.read().decode("utf-8", "replace")

    def exited_quietly(self) -> bool:
        """Return whether it ended with status 0 and printed nothing, no warning either."""
        return self._process.poll() == 0 and not self.errors()

    def close(self) -> None:
        """End it for certain and free everything. Idempotent."""
        if self.running:
            self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream and not stream.closed:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- inside ----------------------------------------------------------------------------------------------

    def _send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise self._ended() from None

    def _read_line(self, timeout: float) -> bytes:
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise WorkerError("TimeoutError", f"no answer within {timeout} s", self.errors())
                part = os.read(self._process.stdout.fileno(), 65536)
                if not part:
                    raise self._ended()
                self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _ended(self) -> WorkerError:
        return WorkerError("", f"the worker ended with status {self._process.wait()}", self.errors())


def _environment(changes: dict[str, str | None]) -> dict[str, str]:
    environment = dict(os.environ)
    paths = [str(TESTS), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    for name, value in changes.items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    return environment
