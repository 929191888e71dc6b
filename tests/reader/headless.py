"""Run the reader's notebooks from top to bottom and compare what they print with what the chapters print.

Usage: python tests/reader/headless.py [notebook ...]. It takes as long as nbval's run of the chapters, and
the code is the same byte for byte, so `make test` leaves it to the night; it runs one in full, in JupyterLab.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "book" / "_ext"), str(ROOT / "tests")]

import budgets  # noqa: E402
import reader_notebooks as reader  # noqa: E402


def said(outputs):
    """What a cell printed and returned, without pictures, pages and progress bars."""
    texts = []
    for output in outputs:
        data = output.get("data", {})
        if output.get("name") != "stderr" and "text/html" not in data:
            text = output.get("text") or data.get("text/plain") or output.get("evalue") or ""
            texts.append(text if isinstance(text, str) else "".join(text))
    return "".join(texts)


def differences(path, book):
    """Where a reader's notebook prints something else than its chapter; its peak memory in GB, its time."""
    chapter = {c.id: c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"}
    nb = reader.notebook(path, book)
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(nb, timeout=900, kernel_name="python3", resources=resources)
        with client.setup_kernel():
            for i, cell in enumerate(nb.cells):
                if cell.cell_type == "code":
                    client.execute_cell(cell, i)
                    stored = chapter.get(cell.id)
                    compared = stored and "nbval-ignore-output" not in stored.metadata.get("tags", [])
                    if compared and said(cell.outputs) != said(stored.outputs):
                        wrong.append(
                            f"{path.name}, {cell.id}: {said(cell.outputs)!r}, not {said(stored.outputs)!r}"
                        )
            memory, seconds = budgets.measure(client.km.provisioner.pid) or (0.0, 0.0)
    if memory > budgets.MEMORY_GB:
        wrong.append(f"{path.name}: its memory peaked at {memory:.2f} GB, over {budgets.MEMORY_GB:g}")
    return wrong, memory, seconds


if __name__ == "__main__":
    book, found = reader.Book(ROOT), []
    for path in [Path(name) for name in sys.argv[1:]] or book.notebooks.values():
        wrong, memory, seconds = differences(path, book)
        print(
            f"{path.stem:30} {memory:.2f} GB {seconds:5.1f} s of one core, {len(wrong)} differences",
            flush=True,
        )
        found += wrong
    print("\n".join(found))
    sys.exit(bool(found))
