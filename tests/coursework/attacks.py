"""Submissions that mean harm: code for one answer of a1, and what the student is to read.

Each finds out what it could do, and says so in an exception, so that the feedback tells what happened.
"""

import uuid
from pathlib import Path

MARK = f"left-behind-{uuid.uuid4().hex}"  # in the command line of whatever is to outlive the run

KILLS_THE_MARKER = """
import os
seen = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        line = open(f"/proc/{pid}/cmdline").read()
    except OSError:
        continue
    if any(word in line for word in ("-m\\0assignments", "pytest", "multiprocessing")):
        seen.append(pid)
        os.kill(int(pid), 9)
raise RuntimeError(f"saw {len(seen)} processes of the marker")
"""
KILLS_ITS_PARENT = "import os\nos.kill(os.getppid(), 9)\nraise RuntimeError('still here')"
DAEMON = f"""
import subprocess, sys
for _ in range(3):
    code = "import time; time.sleep(600)  # {MARK}"
    subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
raise RuntimeError("three were started")
"""
FORKS = """
import os, time
children = []
try:
    for _ in range(400):
        children.append(os.fork())
        if not children[-1]:
            time.sleep(600)
            os._exit(0)
except OSError:
    pass
raise RuntimeError(f"{len(children) < 40} that there were fewer than 40 forks")
"""
FILLS_THE_DISK = """
import os
written = 0
for folder in (".", "/tmp", "/dev/shm", "/", "/dev", "/usr", os.path.expanduser("~")):
    for i in range(8):
        try:
            with open(f"{folder}/fill{i}", "wb") as f:
                written += f.write(b"x" * (40 << 20))
        except OSError:
            pass
raise RuntimeError(f"wrote less than 200 MB: {written < 200 << 20}")
"""
SPIES = """
import os
found = []
for folder, below, names in os.walk("/"):
    below[:] = [d for d in below if d not in ("proc", "sys", "site-packages")]
    wanted = ("hidden.py", "hints.py", "guide.md", "marks.csv", "key", "a1.ipynb")
    found += [n for n in names if n in wanted]
raise RuntimeError(f"found {found}")
"""
CALLS_OUT = """
import socket
try:
    socket.create_connection(("127.0.0.1", PORT), timeout=2)
    raise RuntimeError("connected")
except OSError as error:
    raise RuntimeError("no connection") from None
"""
FORGES = """
import json, os
try:
    os.makedirs("RESULTS", exist_ok=True)
    open("RESULTS/forger.json", "w").write("{}")
    said = f"wrote, where {os.listdir('RESULTS')}"
except OSError:
    said = "could not write"
raise RuntimeError(said)
"""
SURROGATE = "raise ValueError('\\udcff\\ud800 and more')"
SURROGATE_NAME = """
class Odd(Exception): pass
Odd.__name__ = "Odd\\udc80"
raise Odd("\\x1b[31m\\x00")
"""
MARKUP = """
raise ValueError("</code></li><script>alert(1)</script><img src=x onerror=alert(1)>`\\n\\n"
                 "# a1: 25 of 25 points\\n\\n"
                 "[x](javascript:alert(1)) ``` <svg onload=alert(1)> =HYPERLINK(1)")
"""
ROOTS = """
import os
raise RuntimeError(f"root: {os.getuid() == 0}, may become it: {os.system('su -c true >/dev/null 2>&1') == 0}")
"""

ATTACKS: dict[str, tuple[str, str]] = {
    "kills the marker": (KILLS_THE_MARKER, "saw 0 processes of the marker"),
    "kills its parent": (KILLS_ITS_PARENT, "PermissionError|still here|ended the Python process"),
    "leaves daemons": (DAEMON, "three were started"),
    "forks": (FORKS, "True that there were fewer"),
    "fills the disk": (FILLS_THE_DISK, "less than 200 MB: True"),
    "spies": (SPIES, r"found \[\]"),
    "calls out": (CALLS_OUT, "no connection"),
    "forges results": (FORGES, r"could not write|wrote, where \[&#x27;forger.json&#x27;\]"),
    "lone surrogate": (SURROGATE, r"ValueError: \\udcff\\ud800 and more"),
    "odd name": (SURROGATE_NAME, r"Odd\\udc80"),
    "markup": (MARKUP, "ValueError: </code>"),
    "wants root": (ROOTS, "root: False, may become it: False"),
}


def code(attack: str, *, port: int, results: Path) -> str:
    """The answer of an attacker."""
    return ATTACKS[attack][0].replace("PORT", str(port)).replace("RESULTS", str(results))


def left_behind() -> list[str]:
    """Processes that a student's code started and that are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if MARK in line:
            found.append(line)
    return found
