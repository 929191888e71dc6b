"""The process that forks one child for each student: started once, because loading torch takes seconds."""

import functools
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

from assignments import child

START = 120  # seconds to import torch on a busy machine
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "Agg", "TQDM_DISABLE": "1"}


class CannotRun(BaseException):
    """No process can be started at all: not the student's fault, and nothing to swallow on the way up."""


def nobody() -> dict[str, object]:
    """Popen's arguments that give up root's rights, where we have them and Python can be read without."""
    python = Path(sys.executable).absolute()
    folders = [
        *python.parents,
        *python.resolve().parents,
        Path(child.__file__).parent.parent / "lowrank_utils",
    ]
    if os.geteuid() != 0 or any(p.exists() and p.stat().st_mode & 0o005 != 0o005 for p in folders):
        return {}
    entry = pwd.getpwnam("nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class Server:
    """The process that has torch loaded and forks one child for each start; started again when it is gone."""

    def __init__(self, seconds: int, memory_mb: int):
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(START)
        source = Path(child.__file__).read_text()
        arguments = [str(x) for x in (theirs.fileno(), seconds, memory_mb)]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", source, *arguments],
            pass_fds=[theirs.fileno()], cwd="/", start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=ENVIRONMENT | {"PATH": os.environ["PATH"]}, **nobody(),
        )  # type: ignore[call-overload]  # fmt: skip
        theirs.close()

    def fork(self, folder: Path, descriptors: list[int]) -> int:
        """Process id of a new child with these two descriptors."""
        socket.send_fds(self.socket, [str(folder).encode()], descriptors)
        return int(self.socket.recv(32))


@functools.cache
def servers() -> dict[tuple[int, int], Server]:
    """The servers of this process, by their limits."""
    return {}
