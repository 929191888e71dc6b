"""One student's code in a process of its own: run its cells, then ask it for values."""

import contextlib
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Container
from typing import Any, NoReturn

from assignments import cases, child, isolation, variants
from assignments.isolation import Box, CannotRun, Server, servers
from assignments.texts import one_line

GRACE = 10  # seconds that code which ignores its time limit gets before it is killed
ENDED = "your code ended the Python process"
LARGE = "your answer has more than 256 MB"
SHORT = 4  # after an answer to a question that ran out of time, the next ones have this part of it


class Died(Exception):
    """The student's process ended, or had to be ended; str() says which."""


class Student:
    """Runs `cells` (name -> source) in order; one that ends the process is left out when it starts again.

    So is one of `tests` that hung: nothing hangs on what it would define.
    """

    def __init__(
        self, cells: dict[str, str], *, seconds: float, tests: Container[str] = (), memory_mb: int = 2048
    ):
        self.trains = any("train_nn" in source or "optim" in source for source in cells.values())
        self.names: dict[str, str] = {}  # the cohort's, for those in a hidden test
        self.cells, self.seconds, self.tests, self.memory_mb = cells, seconds, tests, memory_mb
        self.errors: dict[str, str | None] = {}  # what each cell raised
        self.lines: dict[str, str] = {}  # and in which statement
        self.complaint: str | None = None  # what the last answer asked of the student's code raised
        self.line = ""
        self.short = False  # an answer to this question ran out of time
        self._over = False  # and so did, or died, one for this check: the rest of it is not asked
        self._skip: set[str] = set()  # cells that end the process
        self._box: Box | None = None
        self._pid: int | None = None
        self._folder = ""

    def __enter__(self) -> "Student":
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def begin_question(self, question: str) -> None:
        """Patience is per question: one that hung before costs this one nothing."""
        self.short = self.errors.get(question) == child.LATE

    def begin_check(self) -> None:
        """After an answer that hung or died the next check gets a fresh process."""
        self.complaint, self.line, self._over = None, "", False
        if self._pid is None:
            self._start()

    def ask(self, code: str, shown: str = "", /, **inputs: object) -> Any:
        """The value of `code` among the student's names; None, with a complaint, if there is none.

        `shown` is how feedback writes the call, where `code` itself is not to be read.
        """
        if self._over:
            return None
        code, shown = variants.in_code(code, self.names), variants.in_call(shown, self.names)
        request = {"ask": code, "inputs": child.encode(inputs), "seconds": self._patience()}
        try:
            reply = self._request(request)
        except Died as death:
            reply = {"error": str(death), "line": "", "value": None}
            self._over = True
        self.complaint, self.line = reply["error"], reply["line"]
        if self.complaint == child.LATE:
            if self.short:
                self.complaint = (
                    f"it ran longer than {self._patience():g} s, and an earlier answer ran out of time"
                )
            self.short = self._over = True
            self._stop()
        value = child.decode(reply["value"])
        cases.asked(shown or code, inputs, value, self.complaint)
        return value

    def _patience(self) -> float:
        return self.seconds / SHORT if self.short else self.seconds

    def _start(self) -> None:
        """Start the process and run every cell that does not end it; one that hung gets less time again."""
        again = bool(self.errors)
        self._open()
        for name, source in self.cells.items():
            if name in self._skip:
                continue
            hung = again and self.errors.get(name) == child.LATE
            if hung and name in self.tests:
                continue
            seconds = self.seconds / SHORT if hung else self.seconds
            try:
                reply = self._request({"cell": source, "name": name, "seconds": seconds})
            except Died as death:
                self.errors[name] = str(death)
                self._skip.add(name)
                return self._start()
            if not again or name not in self.errors:
                self.errors[name], self.lines[name] = reply["error"], reply["line"]

    def _open(self) -> None:
        self._stop()
        theirs, self._requests = os.pipe()
        self._replies, ours = os.pipe()
        os.set_blocking(self._requests, False)
        self._buffer = b""
        for _ in range(2):  # where nothing isolates it, a student's code may have killed the server
            server = servers().get(self.memory_mb) or Server(self.memory_mb)
            try:
                if isolation.missing():
                    self._folder = tempfile.mkdtemp(prefix="coursework-")
                    os.chmod(self._folder, 0o777)
                else:
                    self._box = Box(server.visible)
                folder = self._folder or isolation.HOME
                self._pid = server.fork(self._box, folder, [theirs, ours], trains=self.trains)
                servers()[self.memory_mb] = server
                break
            except (OSError, ValueError):
                self._clean()
                server.process.kill()
                servers().pop(self.memory_mb, None)
        os.close(theirs)
        os.close(ours)
        if self._pid is None:
            raise CannotRun("Python with torch and lowrank_utils does not start")
        with contextlib.suppress(Died):
            if not (said := self._line(time.monotonic() + isolation.START)).startswith(b"{}"):
                raise CannotRun(f"the place for the student's code: {said.decode(errors='replace')}")
            return
        raise CannotRun("the place for the student's code ended before it was ready")

    def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + 3 * request["seconds"] + GRACE
        data = json.dumps(request).encode() + b"\n"
        while data:
            self._wait([], [self._requests], deadline)
            try:
                data = data[os.write(self._requests, data) :]
            except BrokenPipeError:
                break  # the read that follows says why
        reply = self._reply(deadline)
        if reply["gone"]:
            self._end(child.LATE)
        return reply

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._buffer:
            self._wait([self._replies], [], deadline)
            part = os.read(self._replies, 2**20)
            if not part:
                self._end(f"{ENDED} that ran it")
            if len(self._buffer) > 2**28:
                self._end(LARGE)
            self._buffer += part
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def _reply(self, deadline: float) -> dict[str, Any]:
        line = self._line(deadline)
        try:
            reply = json.loads(line)
            error, text = reply["error"], one_line(reply["line"] or "", 400)
            error = None if error is None else one_line(error)
            return {"error": error, "line": text, "value": reply["value"], "gone": reply["gone"]}
        except (ValueError, LookupError, TypeError, RecursionError):
            self._end("your code wrote into the marker's own channel")

    def _wait(self, read: list[int], write: list[int], deadline: float) -> None:
        if not any(select.select(read, write, [], max(0.0, deadline - time.monotonic()))):
            self._end(child.LATE)

    def _end(self, reason: str) -> NoReturn:
        self._stop()
        raise Died(reason)

    def _stop(self) -> None:
        """End the process and all that it started, if there is one."""
        if self._pid is not None:
            if self._box is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._pid, signal.SIGKILL)
            os.close(self._requests)
            os.close(self._replies)
            self._pid = None
        self._clean()

    def _clean(self) -> None:
        if self._box is not None:
            self._box.close()
            self._box = None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""
