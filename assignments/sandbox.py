"""One student's code in a process of its own: run its cells, then ask it for values."""

import contextlib
import json
import os
import select
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

from assignments import child
from assignments.server import CannotRun, Server, servers

GRACE = 10  # seconds that code which ignores its time limit gets before it is killed
PATIENCE = 3  # answers of one submission that may run out of time before the rest is not tried any more


class Died(Exception):
    """The student's process ended, or had to be ended; str() says which."""


class Student:
    """Runs `cells` (name -> source) in order; one that ends the process is left out when it starts again."""

    def __init__(self, cells: dict[str, str], folder: Path, *, seconds: int, memory_mb: int = 2048):
        self.cells, self.folder, self.limits = cells, folder, (seconds, memory_mb)
        self.errors: dict[str, str | None] = {}  # what each cell raised
        self.complaint: str | None = None  # what the last question asked of the student's code raised
        self.hopeless = False  # an answer hung or died: whoever marks resets it for the next question
        self._fatal: set[str] = set()
        self._late = 0
        self._child: int | None = None

    def __enter__(self) -> "Student":
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def ask(self, code: str, **inputs: object) -> Any:
        """The value of `code` among the student's names; None, with a complaint, if there is none."""
        if self.hopeless or self._late > PATIENCE:
            return None
        try:
            reply = self._request({"ask": code, "inputs": child.encode(inputs)})
        except Died as death:
            self.complaint, self.hopeless = str(death), True
            self._start()
            return None
        self.complaint = reply["error"]
        self.hopeless = reply["error"] == child.LATE
        return child.decode(reply["value"])

    def _start(self) -> None:
        """Start the process and run every cell that does not end it."""
        self._open()
        for name, source in self.cells.items():
            if name in self._fatal:
                continue
            if self._late > PATIENCE:
                self.errors[name] = "not run, because so much before it ran out of time"
                continue
            try:
                self.errors[name] = self._request({"cell": source})["error"]
            except Died as death:
                self.errors[name] = str(death)
                self._fatal.add(name)
                return self._start()

    def _open(self) -> None:
        self._stop()
        theirs, self._requests = os.pipe()
        self._replies, ours = os.pipe()
        os.set_blocking(self._requests, False)
        self._buffer = b""
        for _ in range(2):  # a student's code may have killed the server that it was forked from
            server = servers().get(self.limits) or Server(*self.limits)
            try:
                self._child = server.fork(self.folder, [theirs, ours])
                servers()[self.limits] = server
                break
            except (OSError, ValueError):
                server.process.kill()
                servers().pop(self.limits, None)
        os.close(theirs)
        os.close(ours)
        if self._child is None:
            raise CannotRun("Python with torch and lowrank_utils does not start")

    def _request(self, request: dict[str, object]) -> dict[str, Any]:
        deadline = time.monotonic() + 3 * self.limits[0] + GRACE
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
        self._late += reply["error"] == child.LATE
        return reply

    def _reply(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            self._wait([self._replies], [], deadline)
            part = os.read(self._replies, 2**20)
            if not part:
                self._end("your code ended the Python process that ran it")
            if len(self._buffer) > 2**28:
                self._end("your answer has more than 256 MB")
            self._buffer += part
        line, self._buffer = self._buffer.split(b"\n", 1)
        try:
            reply = json.loads(line)
            return {key: reply.get(key) for key in ("error", "value", "gone")}
        except (ValueError, AttributeError):
            self._end("your code wrote into the marker's own channel")

    def _wait(self, read: list[int], write: list[int], deadline: float) -> None:
        if not any(select.select(read, write, [], max(0.0, deadline - time.monotonic()))):
            self._end(child.LATE)

    def _end(self, reason: str) -> NoReturn:
        self._stop()
        self._late += reason == child.LATE
        raise Died(reason)

    def _stop(self) -> None:
        """End the process and all that it started, if there is one."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child, signal.SIGKILL)
            os.close(self._requests)
            os.close(self._replies)
            self._child = None
