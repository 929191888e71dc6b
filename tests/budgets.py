"""Plugin: what each notebook's kernel took under nbval. Too much memory is an error; a table ends the run.

Binder gives 2 GB, of which a chapter may take 1.8: the server of JupyterLab takes 0.11. The time is the
processor's, over all threads (a chapter uses one): a busy machine changes it least. It still differs between
machines, and a slow one is no fault of a chapter: where the time is over the limit, the limit is stretched by
what a short piece of fixed work takes there.
"""

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest

MEMORY_GB = 1.8  # chapter 6 was measured at 1.42 and at 1.50, chapter 9 from 1.58 to 1.74
NOISE_GB = 0.5  # rounding noise holds arrays of the size of those that it moves; chapter 9 had up to 2.18
LONG_GB = 0.1  # a long run that is whole holds the results of all its settings; chapter 9 then had 1.75
CPU_SECONDS = 150  # chapter 9 takes 63 to 75, where `slowness` is about 1
WORK_SECONDS = 0.13  # 0.42 on an EPYC of 2 GHz with AVX2: chapters 8 and 9 take 3 to 4 times as long
taken: dict[str, tuple[float, float, str]] = {}


def measure(pid: int) -> tuple[float, float] | None:
    """Peak memory in GB and processor time in seconds of a live process; None where there is no /proc."""
    proc = Path("/proc") / str(pid)
    if not proc.is_dir():
        return None
    peak = re.search(r"VmHWM:\s+(\d+) kB", (proc / "status").read_text())
    times = (proc / "stat").read_text().rpartition(")")[2].split()[11:13]  # user, system
    return int(peak[1]) * 1024 / 1e9, sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def slowness() -> float:
    """How many times as long as where CPU_SECONDS was chosen products and Python take here; at least 1."""
    started = time.process_time()
    A = np.full((1024, 1024), 0.5, np.float32)
    for _ in range(5):
        A @ A
    sum(i * i for i in range(1_000_000))
    return max(1.0, (time.process_time() - started) / WORK_SECONDS)


def complaint(memory: float, seconds: float) -> str:
    """What is wrong with these figures, if anything."""
    noise = bool(os.environ.get("ROUNDING_NOISE"))
    long = bool(os.environ.get("LONG_RUNS"))
    most = MEMORY_GB + NOISE_GB * noise + LONG_GB * long
    wrong = [f"its memory peaked at {memory:.2f} GB, over {most:g}"] if memory > most else []
    if seconds > CPU_SECONDS and not (noise or long):  # they take up to three times as long
        limit = CPU_SECONDS * slowness()
        if seconds > limit:
            wrong.append(f"it took {seconds:.0f} s of processor time, over {limit:.0f}")
    return " and ".join(wrong)


def promised(notebook: Path) -> str:
    """What the chapter's box says of its run time."""
    found = re.search(r"to read, ([^.]*?) to run\.", notebook.read_text(encoding="utf-8"))
    return found[1] if found else "nothing"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """After a notebook's last cell, and before its kernel ends, note what it took."""
    kernel = getattr(item.parent, "kernel", None)
    last = nextitem is None or nextitem.parent is not item.parent
    figures = measure(kernel.km.provisioner.pid) if kernel and last and kernel.is_alive() else None
    result = yield
    if figures:
        item.user_properties.append(("taken", (item.path.stem, *figures, promised(item.path))))
        if wrong := complaint(*figures):
            pytest.fail(f"{item.path.name}: {wrong}", pytrace=False)
    return result


def pytest_runtest_logreport(report):
    """Collect the figures, also from the processes of xdist."""
    if report.when == "teardown":
        taken.update((name, tuple(rest)) for key, (name, *rest) in report.user_properties if key == "taken")


def pytest_terminal_summary(terminalreporter):
    """One line for each notebook that ran to its end."""
    if taken:
        terminalreporter.section(f"what the notebooks took (memory at most {MEMORY_GB:g} GB)")
    for name, (memory, seconds, told) in sorted(taken.items()):
        terminalreporter.line(f"{name:30} {memory:5.2f} GB {seconds:6.1f} s of one core; its box says {told}")
