"""One student's code in a process of its own: run its cells, then ask it for values."""

import json
import os
import pwd
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from assignments import child

GRACE = 10  # seconds that code which ignores its time limit gets before it is killed
START = 120  # seconds to import torch on a busy machine
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "Agg", "TQDM_DISABLE": "1"}


class Died(Exception):
    """The student's process ended, or had to be ended; str() says which."""


def nobody() -> dict[str, object]:
    """Popen's arguments that give up root's rights, where we have them and Python can be read without."""
    folders = [Path(sys.executable).resolve(), *Path(sys.executable).resolve().parents, *Path(__file__).parents]
    if os.geteuid() != 0 or any(not p.stat().st_mode & 0o005 for p in folders):
        return {}
    entry = pwd.getpwnam("nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class Student:
    """Runs `cells` (name -> source) in order; a cell that ends the process is left out when it starts again."""

    def __init__(self, cells: dict[str, str], folder: Path, *, seconds: int, memory_mb: int = 2048):
        self.cells, self.folder, self.seconds, self.memory_mb = cells, folder, seconds, memory_mb
        self.errors: dict[str, str | None] = {}
        self.text: dict[str, str] = {}
        self.fatal: dict[str, str] = {}
        self.complaint: str | None = None
        self.hopeless = False  # set when an answer hangs or kills: whoever marks resets it for the next question
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Student":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and run every cell that does not end it."""
        for _ in range(len(self.cells) + 1):
            try:
                self._open()
                for name, source in self.cells.items():
                    if name not in self.fatal:
                        reply = self._request({"cell": source}, name)
                        self.errors[name], self.text[name] = reply["error"], reply["text"]
                return
            except Died as death:
                self.errors[self.now] = self.fatal[self.now] = str(death)

    def ask(self, code: str, **inputs: object) -> object:
        """The value of the expression `code` among the student's names; None, with a complaint, if there is none."""
        if self.hopeless:
            return None
        try:
            reply = self._request({"ask": code, "inputs": child.encode(inputs)}, code)
        except Died as death:
            self.complaint, self.hopeless = str(death), True
            self.start()
            return None
        self.complaint = reply["error"] or self.complaint
        self.hopeless = reply["error"] == child.LATE
        return child.decode(reply["value"])

    def _open(self) -> None:
        self.stop()
        self.now = "start"
        theirs, self.requests = os.pipe()
        self.replies, ours = os.pipe()
        source = Path(child.__file__).read_text()
        arguments = [str(x) for x in (theirs, ours, self.seconds, self.memory_mb)]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", source, *arguments],
            pass_fds=(theirs, ours), cwd=self.folder, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=ENVIRONMENT | {"HOME": str(self.folder), "PATH": os.environ["PATH"]}, **nobody(),
        )  # fmt: skip
        os.close(theirs)
        os.close(ours)
        self.buffer = b""
        self._reply(START)

    def _request(self, request: dict[str, object], name: str) -> dict:
        self.now = name
        if self.process is None:
            raise Died("the process could not be started")
        try:
            data = memoryview(json.dumps(request).encode() + b"\n")
            while data:
                data = data[os.write(self.requests, data) :]
        except OSError:
            raise Died("your code ended the Python process that ran it") from None
        return self._reply(self.seconds + GRACE)

    def _reply(self, seconds: float) -> dict:
        deadline = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.replies], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                self.stop()
                raise Died(f"your code did not stop when its {self.seconds} seconds were over")
            if not (part := os.read(self.replies, 2**20)) or len(self.buffer) > 2**28:
                self.stop()
                raise Died("your code ended the Python process that ran it")
            self.buffer += part
        line, self.buffer = self.buffer.split(b"\n", 1)
        try:
            reply = json.loads(line)
            reply["error"], reply["text"] = reply.get("error"), str(reply.get("text", ""))
            return reply
        except (ValueError, TypeError, AttributeError):
            self.stop()
            raise Died("your code wrote into the channel of the marker") from None

    def stop(self) -> None:
        """End the process and all that it started; nothing to do if there is none."""
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        os.close(self.requests)
        os.close(self.replies)
        self.process = None
