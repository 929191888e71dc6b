"""What a command says: why it refuses, an error in one line, a report for other programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class Refused(Exception):  # no error of the program, but the end of a command
    """An argument that cannot be used; its text names the argument, its value and the limit."""

    def __init__(self, argument: str, value: object, limit: str) -> None:
        super().__init__(f"argument {argument}: {value} must be {limit}")


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def as_json(told: Mapping[str, Any]) -> str:
    """One object, with keys in the order given."""
    return json.dumps(told, indent=2, default=str)
