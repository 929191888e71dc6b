"""Comparisons that remember: the call that was made, what came, what was wanted.

A hidden check returns at the first comparison that fails, so the case that is kept is the first one that
failed. Each comparison is written so that only a finite answer of the right form passes.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from assignments.texts import one_line, quoted

LARGE = 1e9  # no answer comes near it
SHOWN = 6  # numbers of a list or an array that are written out


@dataclass
class Case:
    """One failed comparison, in words; what comes from the student's process is quoted."""

    call: str
    came: str
    wanted: str


@dataclass
class Trail:
    """What one check asked, with the answers, and its first comparison that failed."""

    calls: list[tuple[str, Any, str | None]] = field(default_factory=list)
    case: Case | None = None

    def begin(self) -> None:
        """A new check."""
        self.calls, self.case = [], None

    def miss(self, came: Any, wanted: str, part: str = "") -> bool:
        """Keep the first failed comparison; False, so that a comparison can return it."""
        if self.case is None and self.calls:
            call, _, complaint = next(
                (c for c in reversed(self.calls) if c[1] is came and came is not None), self.calls[-1]
            )
            text = f"no answer, but {quoted(complaint)}" if complaint else describe(came) + part
            self.case = Case(call, text, wanted)
        return False


TRAIL = Trail()


def asked(code: str, inputs: dict[str, object], value: Any, complaint: str | None) -> None:
    """Note a call, with the form of what went in, and its answer."""
    forms = [f"{name}: {form(value)}" for name, value in inputs.items()]
    text = one_line(code) + (f" with {', '.join(forms)}" if forms else "")
    TRAIL.calls.append((text, value, complaint))


def form(value: Any) -> str:
    """What an input is: an array's shape and type; a short value itself."""
    if isinstance(value, list | tuple | dict) and len(repr(value)) > 60:
        return f"{type(value).__name__} of {len(value)}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return repr(value)


def describe(value: Any) -> str:
    """A value in words: numbers to six digits, of arrays the shape, and the entries of small ones."""
    if isinstance(value, bool) or value is None:
        return repr(value)
    if isinstance(value, int | float):
        return f"{float(value):.6g}" if isinstance(value, float) or abs(value) < 2**1000 else "a huge number"
    if isinstance(value, str):
        return f"the text {quoted(value, 60)}"
    if hasattr(value, "shape"):
        array = np.asarray(value)
        entries = f" {describe(array.ravel().tolist())}" if 0 < array.size <= SHOWN else ""
        name = "a number in an array" if array.shape == () else f"an array of shape {array.shape}"
        return name + entries
    if isinstance(value, list | tuple):
        more = f", … {len(value)} in all" if len(value) > SHOWN else ""
        return f"[{', '.join(describe(v) for v in value[:SHOWN])}{more}]"
    if isinstance(value, dict):
        pairs = [f"{describe(k)}: {describe(v)}" for k, v in list(value.items())[:SHOWN]]
        return f"{{{', '.join(pairs)}{', …' if len(value) > SHOWN else ''}}}"
    return f"a {one_line(type(value).__name__)}"


def close(got: Any, want: Any, *, tolerance: float = 1e-4) -> bool:
    """Same shape, and nowhere further apart than `tolerance` times the largest wanted entry (at least 1)."""
    try:
        ours, theirs = np.asarray(want, dtype=np.float64), np.asarray(got, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return TRAIL.miss(got, describe(want))
    if theirs.shape != ours.shape:
        return TRAIL.miss(got, describe(want))
    scale = max(1.0, float(np.abs(ours).max(initial=0.0)))
    far = np.abs(theirs - ours)
    if bool(np.all(far <= tolerance * scale)):
        return True
    if ours.shape == ():
        return TRAIL.miss(got, describe(float(ours)))
    at = np.unravel_index(int(np.argmax(np.where(np.isfinite(far), far, np.inf))), ours.shape)
    place = f" at {[int(i) for i in at]}"
    return TRAIL.miss(got, f"{ours[at]:.6g}{place}", f", {theirs[at]:.6g}{place}")


def equal(got: Any, want: Any) -> bool:
    """Exactly this value, of plain numbers, texts, lists and dicts."""
    try:
        same = got is not None and bool(got == want) or got is want
    except (TypeError, ValueError):
        same = False
    return same or TRAIL.miss(got, describe(want))


def at_most(got: Any, bound: float, what: str) -> bool:
    """A finite number that is not above `bound`; `what` says in words which number it is."""
    number = as_number(got)
    if math.isfinite(number) and math.isfinite(bound) and number <= bound:
        return True
    return TRAIL.miss(number, f"at most {bound:.6g}", f" for {what}")


def at_least(got: Any, bound: float, what: str) -> bool:
    """A finite number that is not below `bound`."""
    number = as_number(got)
    if math.isfinite(number) and math.isfinite(bound) and number >= bound:
        return True
    return TRAIL.miss(number, f"at least {bound:.6g}", f" for {what}")


def finite(got: Any) -> bool:
    """Whether there are numbers in it, and none but finite ones of a reasonable size."""
    try:
        numbers = np.asarray(got, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return TRAIL.miss(got, "finite numbers")
    return numbers.size > 0 and bool((np.abs(numbers) <= LARGE).all()) or TRAIL.miss(got, "finite numbers")


def as_number(value: Any) -> float:
    """`value` as a float; nan if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def that(holds: Any, wanted: str, got: Any = None) -> bool:
    """A condition that no other comparison here has; `wanted` puts it in words."""
    return bool(holds) or TRAIL.miss(got, wanted)
