"""A run that is too long for a chapter: a slice is computed now, the rest was stored by the whole run."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lowrank_utils import _checks

FOLDER = Path(__file__).with_name("long_runs")  # NAME.json: {setting: result}
MODE = "LONG_RUNS"  # environment variable: "check" computes every setting, "write" stores them too


def long_run(
    name: str,
    run: Callable[[Any], Any],
    settings: Iterable[Any],
    *,
    again: Iterable[Any],
    rel_tol: float = 1e-3,
    abs_tol: float = 0.0,
) -> dict[Any, Any]:
    r"""Results of ``run`` at each of ``settings``: some computed now, the others read from a file.

    A chapter says in seconds what took minutes. The settings in ``again`` are computed here, and each number
    must agree with the stored one, :math:`|a - b| \le \max(\mathrm{abs\_tol}, \mathrm{rel\_tol}
    \max(|a|, |b|))`: a file of other code is noticed, as far as the tolerance is narrow. ``again=settings``
    computes all of them and reads nothing; then you may change what you like. With the environment variable
    ``LONG_RUNS=check`` every setting is computed and compared, with ``LONG_RUNS=write`` stored.

    Args:
        name: Name of the file, without its ending.
        run: Takes one setting, returns numbers: one, or lists, tuples and dicts of them. It must not depend
            on what ran before it.
        settings: Seeds, ranks, names: each with a text of its own.
        again: Those of the settings that are computed now; at least one.
        rel_tol: Largest relative difference between a number and the stored one, up to 1.
        abs_tol: Largest absolute difference.

    Returns:
        ``{setting: result}`` in the order of ``settings``. Numbers are rounded to six digits, tuples are
        lists and keys texts, computed or read.

    Raises:
        TypeError: If a result holds anything but numbers, texts, None, lists, tuples and dicts, or a
            tolerance is no number.
        ValueError: If two settings have the same text, ``again`` is empty or not among the settings, a
            setting is not in the file, a number differs from the stored one, or a tolerance is out of range.

    Example:
        >>> long_run("squares", lambda n: n**2, [1, 2, 3], again=[1, 2, 3])
        {1: 1, 2: 4, 3: 9}
    """
    settings = list(settings)
    rel_tol = _checks.real(rel_tol, "rel_tol", low=0.0, high=1.0)
    abs_tol = _checks.real(abs_tol, "abs_tol", low=0.0)
    mode = _checks.choice(os.environ.get(MODE, ""), MODE, ("", "check", "write"))
    now = set(settings if mode else again)
    _checks.long_run_settings(settings, now)
    file = FOLDER / f"{name}.json"
    whole = now == set(settings)
    stored = {} if mode == "write" or (whole and not mode) else _read(file)
    results = {}
    with tqdm(settings, desc=name, unit="run", leave=False, delay=1.0) as bar:
        for setting in bar:
            if setting not in now:
                results[setting] = _stored(stored, setting, name)
                continue
            results[setting] = _plain(run(setting))
            if mode == "check" or not (whole or mode):
                old = _stored(stored, setting, name)
                if not _agree(results[setting], old, rel_tol, abs_tol):
                    told = f"{results[setting]} here, {old} in the stored run"
                    _checks.long_run_other(name, setting, told)
    if mode == "write":
        lines = [f"{json.dumps(str(k))}: {json.dumps(v)}" for k, v in results.items()]
        FOLDER.mkdir(exist_ok=True)
        file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return results


def _read(file: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return stored


def _stored(stored: dict[str, Any], setting: object, name: str) -> Any:
    if str(setting) not in stored:
        _checks.long_run_other(name, setting, f"not among the {len(stored)} stored settings")
    return stored[str(setting)]


def _plain(value: object) -> Any:
    """The value as JSON has it, floats with six digits."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    _checks.type_error("run's result", value, "numbers, texts, lists, tuples or dicts: x.item(), X.tolist()")


def _agree(a: Any, b: Any, rel_tol: float, abs_tol: float) -> bool:
    """Whether two results have the same form, the same texts, and nearly the same numbers."""
    numbers = (int, float)
    if isinstance(a, numbers) and isinstance(b, numbers) and bool not in (type(a), type(b)):
        return math.isclose(a, b, rel_tol=rel_tol, abs_tol=abs_tol) or (a != a and b != b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_agree(a[k], b[k], rel_tol, abs_tol) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_agree(x, y, rel_tol, abs_tol) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)
