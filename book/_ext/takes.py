"""How long a cell takes, in a tag that the reader's notebook turns into a sentence before the cell."""

import os
import re
from pathlib import Path

TAG = re.compile(r"takes-(\d+)-s")
SAID = (2, 3, 5, 10, 15, 20, 30, 45, 60)  # seconds of one core, as roughly as one can know them beforehand
STAYS = 1.6  # a new measurement within this factor changes nothing


def processor_seconds(pid: int) -> float | None:
    """Processor time of a process up to now, over all threads; None where there is no /proc."""
    try:
        told = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return sum(map(int, told[11:13])) / os.sysconf("SC_CLK_TCK")


def tagged(tags: list[str], seconds: float) -> list[str]:
    """The tags of a cell that took so long: one that says so from 2 seconds on.

    Another machine or another day moves no tag unless the time is clearly another one.
    """
    known = [int(found[1]) for found in map(TAG.fullmatch, tags) if found]
    if known and known[0] / STAYS <= seconds <= known[0] * STAYS:
        return tags
    others = [tag for tag in tags if not TAG.fullmatch(tag)]
    if seconds < SAID[0]:
        return others
    return [*others, f"takes-{min(SAID, key=lambda said: abs(said - seconds))}-s"]
