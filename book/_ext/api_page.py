"""The page made of the docstrings: their formulas set as formulas, types linked to where they are public."""

import re
from dataclasses import is_dataclass

from docutils import nodes
from sphinx.application import Sphinx

PACKAGE = "lowrank_utils"
CODE = re.compile(r"(``[^`]*``|`[^`]*`)")
NAME = r"((?<![\w.])(?:Vh|phi|sum|[A-Za-z])|\u2016)"  # what can carry an index
INDEX = re.compile(NAME + r"_(?:\{([^}]*)\}|(in|out|[A-Za-z0-9]{1,2}))(?!\w)")
POWER = re.compile(r"(?<=[\w)\]\u2016 ])\^(?:\(([^)]*)\)|(-?\d/\d|-?\w))(?!\w)")
SIGNS = (
    (re.compile(r"\|\|"), "\u2016"),
    (re.compile(r"<="), "\u2264"),
    (re.compile(r">="), "\u2265"),
    (re.compile(r"->"), "\u2192"),
    (re.compile(r"(?<=\S) - (?=\S)"), " \u2212 "),
    (re.compile(r"(?<!\bof)(?<=[\w)]) x (?=[\w(])"), " \u00d7 "),
    (re.compile(r"(?<=\S) \* (?=\S)"), " \u00b7 "),
)
WORDS = re.compile(r"\b(phi|lambda|alpha|beta|mu|tau|sum)(?=[\s\\^().,;_])")
LETTERS = {"phi": "\u03c6", "lambda": "\u03bb", "alpha": "\u03b1", "beta": "\u03b2", "mu": "\u03bc"}
LETTERS |= {"tau": "\u03c4", "sum": "\u03a3"}


def formula(text: str) -> str:
    """Plain text of a docstring as reStructuredText: W_r and A^T get their index and power, <= its sign.

    A docstring writes its formulas as one types them, so that ``help`` can be read; the page sets them.
    """
    for typed, sign in SIGNS:
        text = typed.sub(sign, text)
    text = re.sub(r"([\\*|`])", r"\\\1", text)
    text = INDEX.sub(lambda m: rf"{m[1]}\ :sub:`{m[2] or m[3]}`\ ", text)
    text = POWER.sub(lambda m: rf"\ :sup:`{m[1] or m[2]}`\ ", text)
    text = WORDS.sub(lambda m: m[0] if m[0] == "sum" and "\\" != text[m.end()] else LETTERS[m[0]], text)
    return re.sub(r"(?<=\w)_(?!\w)", r"\_", text)


def set_formulas(app: Sphinx, what: str, name: str, thing: object, options, lines: list[str]) -> None:
    """Set the formulas of a docstring, but for code and examples."""
    example = False
    for i, line in enumerate(lines):
        example = (example or line.lstrip().startswith(">>>")) and bool(line.strip())
        field = re.match(r"\s*(?::[^:`]+:|\.\. [a-z]+::) ?", line)
        head = field[0] if field else ""
        if not example:
            parts = CODE.split(line[len(head) :])
            parts[::2] = map(formula, parts[::2])
            parts[2::2] = (re.sub(r"^(?=\w)", r"\\ ", text) for text in parts[2::2])  # ``code``d
            lines[i] = head + "".join(parts)


def hide_private(app: Sphinx, what: str, name: str, thing, options, signature: str, returned: str):
    """Leave out the signature of a result that holds private fields: nobody makes one by hand."""
    if is_dataclass(thing) and any(field.startswith("_") for field in thing.__dataclass_fields__):
        return "", None


def link_public(app: Sphinx, env, node, content: nodes.Node) -> nodes.Node | None:
    """Link a type, which knows the module that defines it, to its public name."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith(f"{PACKAGE}."):
        return None
    public = f"{PACKAGE}.{target.rsplit('.', 1)[-1]}"
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, content)


def setup(app: Sphinx) -> dict:
    """Register the steps."""
    app.connect("autodoc-process-docstring", set_formulas, priority=900)  # after napoleon
    app.connect("autodoc-process-signature", hide_private)
    app.connect("missing-reference", link_public)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
