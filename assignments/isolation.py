"""Where a student's code runs: namespaces of its own made by bubblewrap, or what the machine has instead.

Inside there are the system and Python, read-only, and three small memory disks: no hidden tests, no results,
no other submissions, no network, no process but its own. The box is a process of bubblewrap that waits; the
student's child is forked from a process that has torch loaded, and steps into it (`child.enter`). When
the marker dies, so does the box; when the box dies, so does everything inside.
"""

import functools
import itertools
import json
import os
import select
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from assignments import child

START = 120  # seconds to import torch on a busy machine
END = 20  # seconds for the kernel to end what was in a box
DISK_BYTES = 64 * 2**20
HOME = "/home/student"  # in the box
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "Agg", "TQDM_DISABLE": "1"}

STARTS = itertools.count()


class CannotRun(BaseException):
    """No process can be started at all: not the student's fault, and nothing to swallow on the way up."""


def mounts(visible: list[str]) -> list[str]:
    """What bubblewrap shows: `/usr`, the folders in `visible`, and three bounded memory disks."""
    disk = ["--size", str(DISK_BYTES), "--perms", "1777", "--tmpfs"]
    out = [*disk, "/tmp", *disk, HOME]
    for name in ("/bin", "/sbin", "/lib", "/lib64"):
        if os.path.islink(name):
            out += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            out += ["--ro-bind", name, name]
    for name in ("/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime"):
        out += ["--ro-bind-try", name, name]
    for name in dict.fromkeys(["/usr", *visible]):
        for above in list(reversed(Path(name).parents))[1:]:
            out += ["--perms", "0755", "--dir", str(above)]
        out += ["--ro-bind", name, name]
    return [*out, "--proc", "/proc", "--dev", "/dev", *disk, "/dev/shm", "--remount-ro", "/dev"]


class Box:
    """One set of namespaces, for one student's process; `close` ends whatever is in it."""

    first: int | None = None

    def __init__(self, visible: list[str]):
        ours, theirs = os.pipe()
        apart = [f"--unshare-{kind}" for kind in ("ipc", "pid", "net", "uts", "cgroup-try")]
        if os.geteuid() != 0:  # root gives its rights up to a user of its own instead
            apart += ["--unshare-user", "--disable-userns"]
        command = [
            "bwrap", *apart, "--die-with-parent", "--new-session", *mounts(visible),
            "--remount-ro", "/", "--info-fd", str(theirs),
            "--", "/bin/sh", "-c", "echo; exec cat",
        ]  # fmt: skip
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, pass_fds=[theirs])
        os.close(theirs)
        info = b""
        while b"}" not in info and (part := os.read(ours, 4096)):  # it comes in several pieces
            info += part
        os.close(ours)
        assert self.process.stdout and self.process.stderr
        if self.process.stdout.readline() != b"\n":
            reason = self.process.stderr.read(300).decode("utf-8", "replace").strip()
            self.close()
            raise OSError(reason or "bwrap ended")
        self.pid: int = json.loads(info)["child-pid"]  # the first process inside: with it all others end
        self.first = os.pidfd_open(self.pid)

    def close(self) -> None:
        """Kill it, and wait until all that ran inside is gone, whatever it was doing."""
        self.process.kill()
        self.process.communicate()
        if self.first is not None:
            select.select([self.first], [], [], END)
            os.close(self.first)
            self.first = None


@functools.cache
def missing() -> str:
    """Why there is no bubblewrap here; empty if there is."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    try:
        Box([]).close()
    except (OSError, ValueError) as error:
        return f"bubblewrap does not work here ({error})"
    return ""


def warning() -> str:
    """What does not hold on this machine, in one line; empty where all of it does."""
    if not missing():
        return ""
    who = "a user without rights" if os.geteuid() == 0 else "you"
    return (
        f"{missing()}: student code runs as {who}, sees other processes and the network, and may leave files "
        "and processes behind; time, memory and file sizes are limited. The page for teachers says more."
    )


def user() -> int | None:
    """The user whom root's rights are given up for: nobody's, and each time another one.

    The limit on processes counts those of a user, so that what ends slowly costs nobody else.
    """
    if os.geteuid() != 0:
        return None
    if missing():  # without mounts of its own it must be able to read Python where Python is
        paths = [
            Path(sys.executable).absolute(),
            Path(sys.executable).resolve(),
            Path(child.__file__).parents[1],
        ]
        closed = next((p for q in paths for p in q.parents if p.stat().st_mode & 0o005 != 0o005), None)
        if closed:
            raise CannotRun(
                f"{missing()}, and only root can read {closed}: student code would run as root. Install "
                "bubblewrap, or put Python and the course where everybody can read them."
            )
    return 60_000 + (37 * os.getpid() + next(STARTS)) % 5000


class Server:
    """The process that has torch loaded and forks one child for each start."""

    def __init__(self, memory_mb: int):
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(START)
        source = Path(child.__file__).read_text()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", source, str(theirs.fileno()), str(memory_mb)],
            pass_fds=[theirs.fileno()], cwd="/", start_new_session=True,
            env=ENVIRONMENT | {"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        self.visible: list[str] = json.loads(self.socket.recv(4096) or b"[]")
        if not self.visible:
            raise CannotRun("Python with torch and lowrank_utils does not start")

    def fork(self, box: Box | None, folder: str, descriptors: list[int], *, trains: bool = False) -> int:
        """Process id of a new child with these two descriptors; one that `trains` finds optimizers loaded."""
        request: dict[str, Any] = {"box": box and box.pid, "uid": user(), "folder": folder, "trains": trains}
        socket.send_fds(self.socket, [json.dumps(request).encode()], descriptors)
        return int(self.socket.recv(32))


@functools.cache
def servers() -> dict[int, Server]:
    """The servers of this process, by the memory that their children get."""
    return {}
