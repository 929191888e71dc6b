"""Run notebooks in place, each in one fresh kernel, and store their outputs with minimal metadata.

Usage: python refresh.py [--long] chapter.ipynb [...]. Cell ids, tags and alt texts stay as they are, but for
the tag that says how long a cell takes. With --long a chapter that shows a slice of a long run computes the
whole of it first, and stores that.
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from takes import processor_seconds, tagged

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
KEPT = {"mystnb", "tags"}


def without(metadata: dict, key: str) -> dict:
    """Metadata less one key."""
    return {k: v for k, v in metadata.items() if k != key}


def run_long(path: Path) -> None:
    """Execute one notebook with its long runs whole, for the files that they write."""
    nb, folder = nbformat.read(path, as_version=4), {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(nb, timeout=3600, kernel_name="python3", resources=folder)
    client.execute(env={**os.environ, "LONG_RUNS": "write"})


def refresh(path: Path, *, long: bool) -> None:
    """Execute one notebook in its own folder and write it back."""
    nb = nbformat.read(path, as_version=4)
    client = NotebookClient(
        nb,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    started: dict[int, float | None] = {}

    def start(cell, cell_index: int) -> None:
        started[cell_index] = processor_seconds(client.km.provisioner.pid)

    def end(cell, cell_index: int, execute_reply) -> None:
        before, now = started[cell_index], processor_seconds(client.km.provisioner.pid)
        if before is not None and now is not None:
            tags = tagged(cell.metadata.get("tags", []), now - before)
            cell.metadata = {**cell.metadata, "tags": tags} if tags else without(cell.metadata, "tags")

    if long and "long_run(" in path.read_text(encoding="utf-8"):
        run_long(path)
    client.on_cell_execute, client.on_cell_executed = start, end
    client.execute()
    nb.metadata = nbformat.from_dict(METADATA)
    for cell in nb.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k in KEPT}
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = {}
            if output.output_type == "error":  # the message; a traceback names files of this machine
                output.traceback = [f"{output.ename}: {output.evalue}"]
    nbformat.validate(nb)
    nbformat.write(nb, path)


if __name__ == "__main__":
    names = [name for name in sys.argv[1:] if name != "--long"]
    for name in names:
        print(name, flush=True)
        refresh(Path(name), long=len(names) < len(sys.argv) - 1)
