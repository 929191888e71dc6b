"""What every judge does with an answer: read it, whatever type it has, and run it, whatever it does."""

from __future__ import annotations

import contextlib
import copy
import io
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

Judge = Callable[[object], str | None]
"""Takes an answer that is not None; returns None if it is right, else a hint in one sentence."""


class NotYet(Exception):  # no error, but the end of a judge's work
    """The hint, raised where a judge need not go on."""


@contextlib.contextmanager
def on(case: str) -> Iterator[None]:
    """Name the case in every hint that is raised inside: ``on a wide W: ...``."""
    try:
        yield
    except NotYet as hint:
        raise NotYet(f"on {case}: {hint}") from hint


def describe(answer: object) -> str:
    """What an answer is, in a few words: ``the text '72'``, ``a list of 3``, ``a tensor of shape (3, 4)``."""
    if isinstance(answer, str):
        return f"the text {answer[:40]!r}"
    if answer is None or isinstance(answer, bool | np.bool_):
        return str(answer)
    if isinstance(answer, Tensor | np.ndarray):
        what = "a tensor" if isinstance(answer, Tensor) else "an array"
        return f"{what} of shape {tuple(answer.shape)}" if answer.shape else f"{answer.item():g}"
    if isinstance(answer, list | tuple | set | frozenset | dict):
        return f"a {type(answer).__name__} of {len(answer)}"
    if isinstance(answer, int | float | np.number):
        return f"{answer:.6g}" if isinstance(answer, float) else str(answer)
    if callable(answer) and not isinstance(answer, nn.Module):
        return "a function"
    return f"an object of type {type(answer).__name__}"


def _refuse(answer: object, wanted: str) -> NoReturn:
    raise NotYet(f"give {wanted}, not {describe(answer)}.")


def number(answer: object, wanted: str) -> float:
    """The finite real number that an answer of any numeric kind holds: 0.1, tensor(0.1), array([0.1]).

    Args:
        answer: Whatever was given or returned; a text or a truth value is no number.
        wanted: What to ask for instead, ``"one number, the relative error"``.

    Raises:
        NotYet: If it is no such number.
    """
    if isinstance(answer, str | bytes | bool | np.bool_) or not hasattr(answer, "__float__"):
        _refuse(answer, wanted)
    if isinstance(answer, Tensor | np.ndarray) and str(answer.dtype).endswith("bool"):
        _refuse(answer, wanted)
    try:
        value = float(answer.item() if isinstance(answer, Tensor | np.ndarray) else answer)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        _refuse(answer, wanted)
    if not math.isfinite(value):
        _refuse(value, wanted)
    return value


def whole(answer: object, wanted: str, *, low: int | None = None) -> int:
    """The whole number that an answer of any numeric kind holds: 72, 72.0, tensor(72).

    Raises:
        NotYet: If it is no whole number, or lies below ``low``.
    """
    value = number(answer, wanted)
    try:
        result = operator.index(answer)  # type: ignore[arg-type]  # exact, where a float is not
    except TypeError:
        result = round(value)
    if abs(result - value) > 1e-9 * max(1.0, abs(value)) or (low is not None and result < low):
        _refuse(answer, wanted)
    return result


def items(answer: object, wanted: str, count: int | None = None) -> list[Any]:
    """The elements of a tuple, list, array or tensor with at least one axis.

    Raises:
        NotYet: If it is nothing of that kind (a text, a set and a dict have no order), or not ``count`` long.
    """
    if isinstance(answer, Tensor | np.ndarray) and answer.ndim > 0:
        answer = list(answer)
    if not isinstance(answer, tuple | list) or (count is not None and len(answer) != count):
        _refuse(answer, wanted)
    return list(answer)


def by_letter(answer: object, letters: str) -> object:
    """The values of a dict ``{"a": .., "b": ..}`` in the order of the letters; anything else as it is."""
    if isinstance(answer, Mapping) and set(answer) == set(letters):
        return tuple(answer[letter] for letter in letters)
    return answer


def matrix(answer: object, shape: tuple[int, ...], wanted: str) -> Tensor:
    """The finite float64 tensor of this shape that an answer holds, be it a tensor, an array or nested lists.

    Raises:
        NotYet: If it holds none, has another shape, or an entry that is nan or infinite.
    """
    try:
        tensor = (
            answer.detach()
            if isinstance(answer, Tensor)
            else torch.as_tensor(np.ascontiguousarray(answer, float))
        )
    except (TypeError, ValueError):
        _refuse(answer, wanted)
    if tensor.shape != shape or tensor.is_complex():
        _refuse(answer, wanted)
    if not bool(tensor.isfinite().all()):
        raise NotYet(f"{int((~tensor.isfinite()).sum())} entries of the result are nan or infinite.")
    return tensor.cpu().double()


def members(answer: object, wanted: str) -> set[Any]:
    """The elements of a set, list, tuple, array or tensor; tensors of one number become that number.

    Raises:
        NotYet: If it is no collection (a text is none), or its elements cannot stand in a set.
    """
    if isinstance(answer, str) or not isinstance(answer, Iterable):
        _refuse(answer, wanted)
    try:
        return {one.item() if isinstance(one, Tensor | np.generic) else one for one in answer}
    except (TypeError, ValueError, RuntimeError):
        _refuse(answer, wanted)


def _same(one: object, other: object) -> bool:
    if isinstance(one, nn.Module) and isinstance(other, nn.Module):
        left, right = one.state_dict(), other.state_dict()
        modes = [[m.training for m in net.modules()] for net in (one, other)]
        return (
            modes[0] == modes[1]
            and left.keys() == right.keys()
            and all(map(_same, left.values(), right.values()))
        )
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def _parts(argument: object) -> str:
    return " (a weight, a buffer, or train and eval)" if isinstance(argument, nn.Module) else ""


def _words(error: BaseException) -> str:
    first = str(error).strip().partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {first[:200]}" if first else type(error).__name__


def function(answer: object, call: str, *, may_raise: bool = False) -> Callable[..., Any]:
    """The answer as a function that fails with a hint: it raises NotYet where the answer misbehaves.

    What it prints is shown after it has returned. Arguments are handed over as they are, and compared with
    a copy afterwards. Gradients that it switches off for the whole process are switched on again.

    Args:
        answer: Whatever was given.
        call: The call that the exercise asks for, ``"penalty(W)"``.
        may_raise: Whether an exception is passed on, and not turned into a hint.

    Raises:
        NotYet: At once if the answer is no function; when it is called, if it raises, returns None, changes
            an argument or leaves gradients switched off.
    """
    name = call.partition("(")[0]
    if not callable(answer) or isinstance(answer, nn.Module):
        _refuse(answer, f"the function {name} itself, which is then called as {call}")

    def run(*args: Any) -> Any:
        kept, printed, gradients = copy.deepcopy(args), io.StringIO(), torch.is_grad_enabled()
        try:
            with contextlib.redirect_stdout(printed):
                result = answer(*args)
        except (Exception, SystemExit) as error:
            if may_raise:
                raise
            raise NotYet(f"your function raised {_words(error)}.") from error
        finally:
            print(printed.getvalue(), end="")
            now_on = torch.is_grad_enabled()
            torch.set_grad_enabled(gradients)
        if now_on != gradients:
            raise NotYet("your function leaves gradients switched off; take torch.no_grad() as a context.")
        for argument, before, now in zip(
            call.partition("(")[2].rstrip(")").split(", "), kept, args, strict=True
        ):
            if not _same(before, now):
                raise NotYet(f"your function changes its argument {argument}{_parts(now)}; work on a copy.")
        if result is None:
            shown = "it prints, but " if printed.getvalue() else ""
            raise NotYet(f"your function returns None: {shown}the answer is what it returns.")
        return result

    return run


def named(
    value: float, slips: Mapping[str, float], *, rel_tol: float = 1e-3, abs_tol: float = 0.0
) -> str | None:
    """The hint whose slip leads to ``value``, or None: ``{hint: value that the slip gives}``."""
    for hint, slip in slips.items():
        if math.isclose(value, slip, rel_tol=rel_tol, abs_tol=abs_tol):
            return hint
    return None
