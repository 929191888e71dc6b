"""Which command, and how it ends: 0 done, 1 nothing found, 2 an argument that cannot be used."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from lowrank_utils.command import compress, report
from lowrank_utils.command.files import Refused

COMMANDS = {"report": report, "compress": compress}
EPILOG = (
    "exit codes: 0 done; 1 nothing smaller keeps the metric, nothing is written; 2 an argument cannot be used"
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
        warnings.showwarning = _shown  # type: ignore[assignment]
        try:
            code: int = COMMANDS[told.command].run(told, say)
            return code
        except (Refused, ValueError, TypeError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2


def _shown(message: Warning | str, category: type[Warning], *rest: object) -> None:
    """A warning of this package in one line; torch's own, on its file format, are no news to the caller."""
    if issubclass(category, UserWarning) and str(message).startswith("left as they are"):
        print(f"warning: {message}", file=sys.stderr)
