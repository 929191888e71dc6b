"""A notebook of another assignment, handed in for this one."""

import nbformat

from assignments.rebuild import HALF, share
from assignments.release import HERE, NAMES

SENTENCE = "This looks like {0}: the notebook of {1} was asked for."


def looks_like(name: str, submitted: nbformat.NotebookNode, release: nbformat.NotebookNode) -> str:
    """The assignment whose answer cells are there, if those of `name` are not; "" if there is none.

    On Gradescope no other assignment is at hand, and none is named.
    """
    if share(submitted, release) >= HALF:
        return ""
    for other in NAMES:
        teachers = nbformat.read(HERE / other / f"{other}.ipynb", as_version=4)
        if other != name and share(submitted, teachers) > HALF:
            return other
    return ""
