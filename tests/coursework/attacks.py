"""Submissions that mean harm: code for one answer of a1, and what the student is to read.

Each finds out what it could do, and says so in an exception, so that the feedback tells what happened.
"""

import os
import uuid
from pathlib import Path

import nbformat
from coursework.kit import Course, filled

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
raise RuntimeError("fewer than 40 forks" if len(children) < 40 else "40 forks or more")
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
raise RuntimeError(f"{'less' if written < 200 << 20 else 'more'} than 200 MB written")
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
class Kind(type):  # Python itself refuses such a name; what looks it up gets it all the same
    __name__ = property(lambda odd: "Odd\\udc80")
class Odd(Exception, metaclass=Kind): pass
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
    "forks": (FORKS, "RuntimeError: fewer than 40 forks"),
    "fills the disk": (FILLS_THE_DISK, "less than 200 MB written"),
    "spies": (SPIES, r"found \[\]"),
    "calls out": (CALLS_OUT, "no connection"),
    "forges results": (FORGES, r"could not write|wrote, where \[&#x27;forger.json&#x27;\]"),
    "lone surrogate": (SURROGATE, r"ValueError: \\udcff\\ud800 and more"),
    "odd name": (SURROGATE_NAME, r"<code>Odd\\udc80: \[31m"),
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


LONG = "n" * 252
RIGHT = ["ann", "zoe", "Müller", "=1+1", "cem", "dee", "two", LONG]  # all answers are the teacher's
FILES = {  # who handed in what cannot be marked, and what it is
    "sparse": "a notebook of 12 GB",
    "device": "a pipe for a notebook",
    "link": "a link to somebody else's notebook",
    "nothing": "a zip in the folder",
    "ugur": "a zip for the folder",
}


def harmful_class(course: Course, folder: Path, port: int, results: Path) -> None:
    """A folder for each: two who are right, all the attackers, and files that no one should have to open."""
    folder.mkdir(parents=True)

    def hand_in(who: bytes | str, notebook: nbformat.NotebookNode, file: str = "a1.ipynb") -> None:
        home = folder / os.fsdecode(who)
        home.mkdir()
        nbformat.write(notebook, home / file)

    hand_in("ann", course.reference)
    hand_in("zoe", course.reference)
    for attack in ATTACKS:
        hand_in(attack, filled(course.reference, {"search": code(attack, port=port, results=results)}))
    hand_in(b"M\xfcller", course.reference)  # what unzip makes of a zip from Windows
    hand_in("=1+1", course.reference)
    nbformat.write(course.reference, folder / "cem.IPYNB")
    nbformat.write(course.reference, folder / "dee.ipynb.txt")
    (folder / "ugur.zip").write_bytes(b"PK")
    (folder / "notes.txt").write_text("not a student")
    for who in ("sparse", "device", "link", "nothing", "two", LONG):
        (folder / who).mkdir()
    with (folder / "sparse" / "a1.ipynb").open("wb") as f:
        f.truncate(12 * 2**30)
    os.mkfifo(folder / "device" / "a1.ipynb")
    (folder / "link" / "a1.ipynb").symlink_to("../ann/a1.ipynb")
    (folder / "nothing" / "work.zip").write_bytes(b"PK")
    nbformat.write(course.reference, folder / LONG / "a1.ipynb")
    nbformat.write(course.reference, folder / "two" / "a1.ipynb")
    nbformat.write(course.blank, folder / "two" / "old.ipynb")
