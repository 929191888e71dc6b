"""The process that runs a student's code: no answers in it; limits on time, memory and files.

`python -I -c <this file> SOCKET_FD SECONDS MEMORY_MB` loads torch once and then forks: each message on the
socket (a folder, and two file descriptors that come with it) starts a child, and its process id is the reply.
The child reads one JSON request a line and writes one JSON reply a line. Requests: {"cell": source} and
{"ask": code, "inputs": {name: value}}; replies: {"error", "value", "gone"}.
"""

import base64
import builtins
import contextlib
import io
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

LATE = "it ran longer than the time limit"


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


class NoShell:
    """What `%magic` and `!command` lines of a notebook talk to: nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def limits(memory_mb: int) -> None:
    """Memory beyond what is mapped now, because torch maps gigabytes that it never touches; file sizes."""
    with open("/proc/self/statm") as f:
        mapped = int(f.read().split()[0]) * resource.getpagesize()
    for what, limit in (
        (resource.RLIMIT_AS, mapped + memory_mb * 2**20),
        (resource.RLIMIT_FSIZE, 50 * 2**20),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def answer(read_fd: int, write_fd: int, seconds: int) -> None:
    """Answer requests until the other side closes."""
    import torch
    from IPython.core.inputtransformer2 import TransformerManager

    replies = os.fdopen(write_fd, "w")
    space: dict[str, Any] = {"__name__": "__main__", "get_ipython": NoShell, "display": print}
    times = [0]

    def reply(error: BaseException | None, value: Any = None, gone: bool = False) -> None:
        print(
            json.dumps({"error": error and say(error), "value": value, "gone": gone}),
            file=replies,
            flush=True,
        )

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
    for line in os.fdopen(read_fd):
        request, error, value = json.loads(line), None, None
        torch.manual_seed(0)
        np.random.seed(0)
        watch(seconds)
        try:
            with contextlib.redirect_stdout(Nowhere()), contextlib.redirect_stderr(Nowhere()):
                if "cell" in request:
                    exec(compile(TransformerManager().transform_cell(request["cell"]), "cell", "exec"), space)
                else:
                    value = encode(eval(request["ask"], space | decode(request["inputs"], torch.from_numpy)))
        except BaseException as e:  # whatever a student's code raises is an answer, not our end
            error = e
        watch(0)
        reply(error, value)


def main(socket_fd: int, seconds: int, memory_mb: int) -> None:
    """Load what notebooks import, then fork for every message."""
    import IPython.core.inputtransformer2  # noqa: F401
    import torch

    import lowrank_utils  # noqa: F401

    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server = socket.socket(fileno=socket_fd)
    while True:
        folder, descriptors, _, _ = socket.recv_fds(server, 4096, 2)
        if not folder:
            return
        if not (pid := os.fork()):
            server.close()
            os.setsid()
            os.chdir(folder)
            os.environ["HOME"] = folder.decode()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            limits(memory_mb)
            answer(descriptors[0], descriptors[1], seconds)
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        server.send(str(pid).encode())


if __name__ == "__main__" and len(sys.argv) == 4:
    main(*(int(a) for a in sys.argv[1:]))
