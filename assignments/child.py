"""The process that runs a student's code. It holds no answers, and has limits on time, memory, files and text.

It is started as `python -I -c <this file> READ_FD WRITE_FD SECONDS MEMORY_MB`, reads one JSON request a line
and writes one JSON reply a line. Requests: {"cell": source} and {"ask": code, "inputs": {name: value}}.
"""

import base64
import builtins
import contextlib
import io
import json
import os
import resource
import signal
import sys

import numpy as np

TEXT = 4000  # characters of printed output that are kept
LATE = "it ran longer than the time limit"


class OutOfTime(BaseException):
    """Not an Exception, so that `except Exception` in a loop does not swallow it."""


class Printed(io.StringIO):
    """Standard output that keeps the first `TEXT` characters and drops the rest."""

    def write(self, text):
        """Keep what still fits; claim to have written all."""
        super().write(text[: max(0, TEXT - self.tell())])
        return len(text)


def encode(value):
    """Plain values, lists, dicts, arrays and tensors as JSON: no pickle, which could run code in the reader."""
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
    array = value if isinstance(value, np.ndarray) else value.detach().numpy()  # a tensor, or a clear AttributeError
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return {"ndarray" if array is value else "tensor": base64.b64encode(out.getvalue()).decode()}


def decode(value, as_tensor=lambda array: array):
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


def say(error):
    """One short line on an error, in words where the Python name alone would not help."""
    if isinstance(error, OutOfTime):
        return LATE
    kind, text = type(error).__name__, " ".join(str(error).split())
    return f"{kind}: {text}"[:300] if text else kind


def main(read_fd, write_fd, seconds, memory_mb):
    """Answer requests until the other side closes."""
    import lowrank_utils  # noqa: F401  what the notebooks import is loaded before the limits and the clock start
    import torch
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    torch.set_num_threads(1)
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config, colors="NoColor")
    with open("/proc/self/statm") as f:  # torch maps gigabytes that it never touches: the limit is on what is added
        mapped = int(f.read().split()[0]) * resource.getpagesize()
    limit = mapped + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (50 * 2**20, 50 * 2**20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def late(*_):
        raise OutOfTime

    def no_input(*_):
        raise EOFError("input() waits for a keyboard, and there is none while your work is marked")

    signal.signal(signal.SIGALRM, late)
    builtins.input = no_input
    replies = os.fdopen(write_fd, "w")
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in os.fdopen(read_fd):
        request, printed, error, value = json.loads(line), Printed(), None, None
        torch.manual_seed(0)
        np.random.seed(0)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                if "cell" in request:
                    done = shell.run_cell(request["cell"])
                    error = done.error_before_exec or done.error_in_exec
                else:
                    space = shell.user_ns | decode(request["inputs"], torch.from_numpy)
                    value = encode(eval(request["ask"], space))
        except BaseException as e:  # whatever a student's code raises is an answer, not our end
            error = e
        signal.setitimer(signal.ITIMER_REAL, 0)
        reply = {"error": say(error) if error else None, "value": value, "text": printed.getvalue()}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__" and len(sys.argv) == 5:
    main(*(int(a) for a in sys.argv[1:]))
