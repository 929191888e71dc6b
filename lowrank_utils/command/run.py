"""Which command, and how it ends: 0 done, 1 nothing found, 2 an argument that cannot be used, 3 a fault."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from lowrank_utils.command import compress, report
from lowrank_utils.command.said import Refused, first_line

COMMANDS = {"report": report, "compress": compress}
# how a warning of this package begins
OURS = ("left as they are", "count_macs has no formula", "exported in training mode")
EPILOG = (
    "exit codes: 0 done; 1 nothing smaller keeps the metric, nothing is written; 2 an argument cannot be "
    "used; 3 out of memory or another fault; 130 interrupted; 141 nobody reads the output"
)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    whole = argparse.ArgumentParser(
        prog="python -m lowrank_utils",
        description="Low-rank compression of a model that torch.export.save wrote. A .pt2 file holds "
        "operators and weights; unlike a pickled module it needs no code of yours, and none is run.",
        epilog=EPILOG,
    )
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        first = (command.__doc__ or "").partition(": ")[2].partition(".")[0]
        one = commands.add_parser(name, help=first, description=first, epilog=EPILOG)
        command.arguments(one)
        one.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return whole


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    told = parser().parse_args(words)

    def say(what: str) -> None:
        if not told.quiet:
            print(f"{what} ...", file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.showwarning = _once()
        try:
            return _run(told, say)
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:  # nobody reads on, as where head has seen enough
            _read_by_nobody()
            return 141


def _run(told: argparse.Namespace, say: Callable[[str], None]) -> int:
    """The exit code of a command, whose result is printed, or its error."""
    code: int
    try:
        code, text = COMMANDS[told.command].run(told, say)
    except BrokenPipeError:
        raise
    except (Refused, ValueError, TypeError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        print(f"error: {type(error).__name__}: {first_line(error)}", file=sys.stderr)
        return 3
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"error: the result cannot be printed: {error}", file=sys.stderr)
        _read_by_nobody()
        return 3
    return code


def _read_by_nobody() -> None:
    """Leave stdout to the system's bin; else Python would write its rest once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _once() -> Callable[..., None]:
    """What shows a warning of this package once, in one line; torch's, on its files, are no news."""
    shown = set[str]()

    def show(message: Warning | str, category: type[Warning], *rest: object) -> None:
        text = str(message)
        if issubclass(category, UserWarning) and text.startswith(OURS) and text not in shown:
            shown.add(text)
            print(f"warning: {text}", file=sys.stderr)

    return show
