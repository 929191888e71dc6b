"""Marks that are kept from run to run, sealed with a key that lies outside the course folder."""

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

from assignments.files import safe_name, write
from assignments.mark import Marks


def key_file() -> Path:
    """Where the key is: $COURSEWORK_KEY, or a file in the user's own configuration."""
    if given := os.environ.get("COURSEWORK_KEY"):
        return Path(given)
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "lowrank-coursework" / "key"


def key() -> bytes:
    """The key; made the first time, for this user's eyes only."""
    path = key_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as f:
            f.write(secrets.token_bytes(32))
    except FileExistsError:
        pass
    return path.read_bytes()


class Results:
    """A file for each student in `folder`."""

    def __init__(self, folder: Path):
        self.folder, self._key = folder, key()
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, student: str) -> Path:
        """The student's file."""
        return self.folder / f"{safe_name(student)}.json"

    def keep(self, student: str, digest: str, marks: Marks) -> None:
        """Write marks that belong to a submission with this digest."""
        text = json.dumps({"digest": digest, "marks": marks})  # in the order of the questions
        write(self.path(student), json.dumps({"seal": self.seal(text), "kept": text}))

    def seal(self, text: str) -> str:
        """The keyed digest of a text."""
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    def read(self, student: str, digest: str) -> tuple[Marks | None, str]:
        """(marks, "") of the same submission; (None, a remark) if the file was not written by us."""
        path = self.path(student)
        if not path.exists():
            return None, ""
        try:
            file = json.loads(path.read_text(encoding="utf-8"))
            if hmac.compare_digest(file["seal"], self.seal(file["kept"])):
                kept = json.loads(file["kept"])
                same = kept["digest"] == digest and kept["marks"]["student"] == student
                return (kept["marks"], "") if same else (None, "")
        except (OSError, ValueError, LookupError, TypeError):
            pass
        return None, "The kept result was changed by somebody else, or the key was: marked again."

    def forget(self, students: list[str]) -> None:
        """Remove the files of all but these."""
        kept = {self.path(student).name for student in students}
        for path in self.folder.glob("*.json"):
            if path.name not in kept:
                path.unlink()
