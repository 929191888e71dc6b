"""The process that runs a student's code: no answers in it; limits on time, memory, processes and files.

`python -I -c <this file> SOCKET_FD MEMORY_MB` loads torch once, says on the socket which folders a child
must be able to read, and then forks: each message (a JSON request, and two file descriptors that come with
it) starts a child, in the namespaces of the process `box` if there is one, as the user `uid`.
The child reads one JSON request a line and writes one JSON reply a line. Requests: {"cell": source, "name",
"seconds"} and {"ask": code, "inputs": {name: value}, "seconds"}; replies: {"error", "line", "value", "gone"}.
"""

import ast
import base64
import builtins
import contextlib
import ctypes
import io
import json
import os
import resource
import signal
import socket
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

LATE = "it ran longer than the time limit"
DIE_WITH_PARENT, ADOPT = 1, 36  # of prctl
PROCESSES = 32  # of a student's own, besides the one that answers


class OutOfTime(BaseException):
    """Not an Exception, so that `except Exception` in a loop does not swallow it."""


class Nowhere(io.TextIOBase):
    """Where printed text goes."""

    def write(self, text: str) -> int:
        """Claim to have written it."""
        return len(text)


def encode(value: Any) -> Any:
    """Plain values, lists, dicts, arrays and tensors as JSON. No pickle: it could run code in the reader."""
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float | np.floating):
        return {"float": repr(float(value))}
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    if isinstance(value, dict):
        return {"dict": [[encode(k), encode(v)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return [encode(v) for v in value]
    array = value if isinstance(value, np.ndarray) else value.detach().numpy()
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return {"ndarray" if array is value else "tensor": base64.b64encode(out.getvalue()).decode()}


def decode(value: Any, as_tensor: Callable[[Any], Any] = lambda array: array) -> Any:
    """What `encode` wrote; `as_tensor` makes a tensor of an array that was one."""
    if isinstance(value, list):
        return [decode(v, as_tensor) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, body),) = value.items()
    if kind == "float":
        return float(body)
    if kind == "dict":
        return {decode(k, as_tensor): decode(v, as_tensor) for k, v in body}
    array = np.load(io.BytesIO(base64.b64decode(body)), allow_pickle=False)
    return as_tensor(array) if kind == "tensor" else array


def say(error: BaseException) -> str:
    """One short line on an error, in words where the Python name alone would not help."""
    if isinstance(error, OutOfTime):
        return LATE
    kind, text = type(error).__name__, " ".join(str(error).split())
    return f"{kind}: {text}"[:300] if text else kind


class Notebook:
    """The names of a notebook; what `%magic` and `!command` lines talk to."""

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}
        self.space: dict[str, Any] = {"__name__": "__main__", "get_ipython": lambda: self, "display": print}

    def run(self, source: str, name: str) -> None:
        """Run one cell; a first line like %%time is obeyed by running what is below it."""
        from IPython.core.inputtransformer2 import TransformerManager

        lines = source.splitlines(keepends=True)
        first = next((i for i, x in enumerate(lines) if x.strip() and not x.lstrip().startswith("#")), 0)
        if lines and lines[first].startswith("%%"):  # Jupyter wants it above the comment "# Answer: ..."
            lines = lines[first:]
        code = TransformerManager().transform_cell("".join(lines))
        self.sources[f"<{name}>"] = code
        exec(compile(code, f"<{name}>", "exec"), self.space)

    def run_cell_magic(self, magic: str, line: str, body: str) -> None:
        """Those that only watch what runs: run it."""
        if magic in {"time", "timeit", "capture", "prun", "memit", "mprun"}:
            self.run(body, list(self.sources)[-1].strip("<>"))

    def run_line_magic(self, magic: str, line: str, **_: object) -> Any:
        """Of the others `%time` alone gives names to anything."""
        if magic != "time":
            return None
        with contextlib.suppress(SyntaxError):
            return eval(line, self.space)
        return exec(line, self.space)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None

    def line(self, error: BaseException) -> str:
        """The statement of a cell in which the error came up: `name: text`."""
        at = ("", 0)
        trace: types.TracebackType | None = error.__traceback__
        while trace is not None:
            file = trace.tb_frame.f_code.co_filename
            at = (file, trace.tb_lineno) if file in self.sources else at
            trace = trace.tb_next
        source = self.sources.get(at[0], "")
        if isinstance(error, SyntaxError) or not source:
            return ""
        text = source.splitlines()[at[1] - 1].strip()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Assert) and node.lineno <= at[1] <= (node.end_lineno or 0):
                text = ast.get_source_segment(source, node) or text
        return f"{at[0].strip('<>')}: {text}"[:400]


def limits(memory_mb: int) -> None:
    """Memory beyond what is mapped now, because torch maps gigabytes that it never touches; the rest."""
    with open("/proc/self/statm") as f:
        mapped = int(f.read().split()[0]) * resource.getpagesize()
    for what, limit in (
        (resource.RLIMIT_AS, mapped + memory_mb * 2**20),
        (resource.RLIMIT_FSIZE, 50 * 2**20),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as f:
        f.write("1000")  # where memory runs out, this process goes first


def answer(read_fd: int, write_fd: int) -> None:
    """Answer requests until the other side closes."""
    import torch

    replies, notebook, times = os.fdopen(write_fd, "w"), Notebook(), [0]

    def reply(error: BaseException | None, value: Any = None, gone: bool = False) -> None:
        message = {"error": error and say(error), "line": "", "value": value, "gone": gone}
        if error:
            with contextlib.suppress(Exception):
                message["line"] = notebook.line(error)
        print(json.dumps(message), file=replies, flush=True)

    def late(*_: object) -> None:
        times[0] += 1
        if times[0] > 3:  # it has caught and ignored three of these
            reply(OutOfTime(), gone=True)
            os._exit(1)
        raise OutOfTime

    def watch(seconds: float) -> None:
        times[0] = 0
        signal.setitimer(signal.ITIMER_PROF, seconds, 1)  # of processor time: the same on a busy machine
        signal.setitimer(signal.ITIMER_REAL, 3 * seconds, 1)  # for code that sleeps

    def no_input(*_: object) -> str:
        raise EOFError("input() waits for a keyboard, and there is none while your work is marked")

    signal.signal(signal.SIGALRM, late)
    signal.signal(signal.SIGPROF, late)
    builtins.input = no_input
    print("{}", file=replies, flush=True)  # ready
    for line in os.fdopen(read_fd):
        request, error, value = json.loads(line), None, None
        torch.manual_seed(0)
        np.random.seed(0)
        watch(request["seconds"])
        try:
            with contextlib.redirect_stdout(Nowhere()), contextlib.redirect_stderr(Nowhere()):
                if "cell" in request:
                    notebook.run(request["cell"], request["name"])
                else:
                    names = notebook.space | decode(request["inputs"], torch.from_numpy)
                    value = encode(eval(request["ask"], names))
        except BaseException as e:  # whatever a student's code raises is an answer, not our end
            error = e
        watch(0)
        reply(error, value)


def enter(box: int) -> None:
    """Step into the namespaces of the process `box`; that of process ids holds for the next child only.

    Where `box` has users of its own, this gives full rights in there, which `give_up` takes away.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    own_users = os.stat("/proc/self/ns/user").st_ino != os.stat(f"/proc/{box}/ns/user").st_ino
    kinds = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000  # mount, uts, ipc, pid, net
    if libc.setns(os.pidfd_open(box), kinds | (0x10000000 if own_users else 0)):
        raise OSError(ctypes.get_errno(), "setns")


def give_up(uid: int | None) -> None:
    """Rights, for good: another user where we are root, no capability, none by starting a program."""
    libc = ctypes.CDLL(None)
    if uid is not None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    libc.capset(ctypes.byref((ctypes.c_uint32 * 2)(0x20080522, 0)), ctypes.byref((ctypes.c_uint32 * 6)()))
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS


def start(request: dict[str, Any], descriptors: list[int], memory_mb: int) -> None:
    """In the new child: into the box, then answer."""
    if request["box"]:
        enter(request["box"])
        if os.fork():  # a process id space holds for children only
            os._exit(0)
        resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))
    give_up(request["uid"])
    if not request["box"]:
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    os.setsid()
    os.chdir(request["folder"])
    os.environ |= {"HOME": request["folder"], "USER": "student", "TMPDIR": request["folder"]}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    limits(memory_mb)
    answer(*descriptors)


def main(socket_fd: int, memory_mb: int) -> None:
    """Load what notebooks import, then fork for every message."""
    import IPython.core.inputtransformer2  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import torch

    import lowrank_utils

    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    ctypes.CDLL(None).prctl(ADOPT, 1, 0, 0, 0)  # else the machine's first process buries the dead, if it does
    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server = socket.socket(fileno=socket_fd)
    packages = [os.path.dirname(str(module.__file__)) for module in (torch, lowrank_utils)]
    seen = [sys.base_prefix, sys.prefix, os.path.dirname(packages[0]), packages[1]]
    server.send(json.dumps(seen).encode())
    while True:
        message, descriptors, _, _ = socket.recv_fds(server, 4096, 2)
        if not message:
            return
        request = json.loads(message)
        if request["trains"]:  # the first optimizer of a process imports torch's compiler, for nearly 2 s
            torch.optim.SGD([torch.zeros(1)])
        if not (pid := os.fork()):
            server.close()
            try:
                start(request, descriptors, memory_mb)
            except BaseException as error:  # before any code of a student: the marker has to know
                os.write(descriptors[1], json.dumps({"failed": say(error)}).encode() + b"\n")
            finally:
                os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        server.send(str(pid).encode())


if __name__ == "__main__" and len(sys.argv) == 3:
    main(*(int(a) for a in sys.argv[1:]))
