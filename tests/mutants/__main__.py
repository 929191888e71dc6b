"""Change the package in small ways and see whether a test notices: `make mutants ROOM=factors`.

    python tests/mutants ROOM [MODULE ...] [--all | --sample N] [--seed S] [--minutes M] [--json FILE]

A room's tests run once to see which of them reach which line. Then each mutant runs in a fork of a process
that has collected the tests, against those that reach its line, until one fails. Exits with 1 where a mutant
survives that survivors.toml does not list, or where fewer than 95 % of those that are not equivalent are
killed. ROOM may be "tonight": those in REVIEWED take turns. With MODULEs, these and their own tests. The
sample is the same each time: a mutant's place in it depends on its line and the seed alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
import tomllib
from pathlib import Path

from operators import Mutant, mutants

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "lowrank_utils"
ROOMS = ("factors", "layers", "search", "network")
WANTED = 0.95
KEY = ("module", "line", "was", "now", "nth")
REVIEWED = {
    "factors": 1000,
    "layers": 60,
    "search": 60,
    "network": 60,
}  # so many mutants of these rooms were looked at, survivors and all


def listed() -> dict[tuple[str, str, str, str, int], bool]:
    """Survivors that are known, and whether each is equivalent: changes nothing that can be seen."""
    entries = tomllib.loads((HERE / "survivors.toml").read_text(encoding="utf-8")).get("survivor", [])
    return {
        (e["module"], e["line"], e["was"], e["now"], e.get("nth", 0)): e.get("equivalent", False)
        for e in entries
    }


def of_room(room: str, modules: list[str]) -> list[Mutant]:
    """Every mutant of a room, or of these modules of it."""
    found: list[Mutant] = []
    for path in sorted((PACKAGE / room).glob("*.py")):
        if not modules or path.stem in modules:
            found += mutants(f"{room}/{path.name}", path.read_text(encoding="utf-8"))
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("room", choices=[*ROOMS, "tonight"])
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--sample", type=int, help="so many of the room's, drawn by the seed")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=75.0, help="what is not reached by then is told")
    parser.add_argument("--enough", type=float, default=30.0, help="seconds of tests for one mutant")
    parser.add_argument("--again", type=Path, help="only what survived in this --json of a run before")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    room = asked.room
    if room == "tonight":
        room = list(REVIEWED)[datetime.date.today().toordinal() % len(REVIEWED)]
    everything = of_room(room, asked.modules)
    drawn = sorted(everything, key=lambda mutant: mutant.place(asked.seed))
    drawn = drawn if asked.all else drawn[: asked.sample or REVIEWED.get(room, 60)]
    known = listed()
    if asked.again:
        before = json.loads(asked.again.read_text(encoding="utf-8"))
        alive = {tuple(r[k] for k in KEY) for r in before if not r["killed_by"]}
        drawn = [mutant for mutant in everything if mutant.key in alive - set(known)]
    start = time.monotonic()
    os.chdir(HERE.parents[1])

    from judging import Judge  # torch and pytest

    results: list[dict[str, object]] = []

    def work(judge: Judge) -> None:
        print(
            f"{room}: {len(drawn)} of {len(everything)} mutants, {len(judge.reach.seconds)} tests", flush=True
        )
        for mutant in drawn:
            begun = time.monotonic()
            if begun - start > 60 * asked.minutes:
                print(f"{len(drawn) - len(results)} were not reached in {asked.minutes:g} minutes")
                break
            tests = judge.reach.tests(mutant, asked.enough)
            killer = judge.killer(mutant, tests) if tests else ""
            results.append(
                {name: getattr(mutant, name) for name in ("number", *KEY)}
                | {"killed_by": killer, "tests": len(tests), "seconds": round(time.monotonic() - begun, 2)}
                | {"listed": mutant.key in known}
            )
            if asked.json:
                asked.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
            if not killer:
                word = "listed" if mutant.key in known else "SURVIVES"
                print(f"{word}: {mutant.module}:{mutant.number}: {mutant.was}  ->  {mutant.now}", flush=True)

    Judge(room, asked.modules, work).start()
    alive = [r for r in results if not r["killed_by"]]
    new = [r for r in alive if not r["listed"]]
    same = sum(known.get(tuple(r[k] for k in KEY), False) for r in alive)
    killed = len(results) - len(alive)
    share = killed / max(len(results) - same, 1)
    print(
        f"{room}: {killed} of {len(results)} killed, {same} of the others are equivalent: {share:.1%}; "
        f"{len(alive)} survive, {len(new)} of them not listed"
    )
    return int(bool(new) or share < WANTED)


if __name__ == "__main__":
    sys.exit(main())
