"""The pages made of the docstrings: formulas drawn, references linked, examples that run as shown."""

import ast
import builtins
import doctest
import inspect
import re
import sys
import unicodedata
from dataclasses import is_dataclass
from pathlib import Path

from docutils import nodes
from pybtex.database import parse_file
from repository import address
from sphinx.application import Sphinx
from sphinx.util import logging
from typeset import typeset

ROOT = Path(__file__).parents[2]
PACKAGE = "lowrank_utils"
MODULES = (PACKAGE, f"{PACKAGE}.plotting", f"{PACKAGE}.exercises")
OTHERS = {
    "math": "import math",
    "plt": "import matplotlib.pyplot as plt",
    "torch": "import torch",
    "nn": "from torch import nn",
}
HEAD = re.compile(r"\s*(?::(?P<field>[^:`]+):|\.\. [a-z]+::) ?|\s*(?=[-*] )")
SURNAME = r"(?:(?:De|Van|Von) )?[A-Z][a-z]+(?:-[A-Z][a-z]+)?"
WORK = re.compile(
    rf'(?P<first>{SURNAME})(?:(?:, {SURNAME})*,? (?:&|and) {SURNAME}| et al\.)?(?:,\s"[^"]*",)?\s'
    r"(?P<year>(?:19|20)\d\d)\b"
)
logger = logging.getLogger(__name__)


def bare(name: str) -> str:
    """A surname without accents and capitals."""
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()


def works() -> dict[tuple[str, str], str]:
    """Keys of the bibliography by the first author's surname and the year."""
    entries = parse_file(str(ROOT / "book" / "references.bib")).entries
    return {
        (bare(" ".join(entry.persons["author"][0].last_names)), entry.fields["year"]): key
        for key, entry in entries.items()
    }


def cite(text: str, known: dict[tuple[str, str], str], *, every: bool, where: str) -> str:
    """Make "Eckart & Young 1936" a citation; where every work must be known, say which is not."""

    def role(match: re.Match) -> str:
        key = known.get((bare(match["first"]), match["year"]))
        if key is None and every:
            logger.warning("%s: %r is not in references.bib", where, match[0])
        return match[0] if key is None else f":cite:t:`{key}`"

    cited = WORK.sub(role, text)
    if every and (year := re.search(r"\b(?:19|20)\d\d\b", re.sub("`[^`]*`", "", cited))):
        logger.warning("%s: write the work of %s as Surname & Surname %s", where, year[0], year[0])
    return cited


def imports(example: str) -> list[str]:
    """The lines that an example needs before it, so that it runs where it is copied to."""
    tree = ast.parse("".join(e.source for e in doctest.DocTestParser().get_examples(example)))
    names = [n for n in ast.walk(tree) if isinstance(n, ast.Name)]
    made = {n.id for n in names if isinstance(n.ctx, ast.Store)} | set(dir(builtins))
    made |= {(a.asname or a.name) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    wanted = {n.id for n in names} - made
    lines = [line for name, line in OTHERS.items() if name in wanted]
    for module in MODULES:
        found = sorted(name for name in wanted - set(OTHERS) if hasattr(sys.modules.get(module), name))
        wanted -= set(found)
        lines += [f"from {module} import {', '.join(found)}"] if found else []
    return [f">>> {line}" for line in lines]


def draw(app: Sphinx, what: str, name: str, thing: object, options, lines: list[str]) -> None:
    """Typeset the paragraphs of a docstring, link its references, complete its examples."""
    done: list[str] = []
    while lines:
        block = [lines.pop(0)]
        if block[0].strip():
            while (
                lines
                and lines[0].strip()
                and (block[0].lstrip().startswith(">>>") or not HEAD.match(lines[0]))
            ):
                block.append(lines.pop(0))
        if block[0].lstrip().startswith(">>>"):
            while len(lines) > 1 and not lines[0].strip() and lines[1].lstrip().startswith(">>>"):
                block += [lines.pop(0)]
                while lines and lines[0].strip():
                    block.append(lines.pop(0))
            indent = block[0][: len(block[0]) - len(block[0].lstrip())]
            done += [indent + line for line in imports("\n".join(block) + "\n")] + block
            continue
        head = HEAD.match(block[0])
        start, field = (head[0], head["field"] or "") if head else ("", "")
        text = "\n".join(block)[len(start) :]
        if not field.startswith(("type ", "rtype")) and not start.lstrip().startswith(".."):
            text = cite(text, app.env.works, every=field == "Reference", where=name)
            text = typeset(text)
        done += (start + text).split("\n")
    lines[:] = done


def read_works(app: Sphinx, env, docnames) -> None:
    """Read the bibliography once."""
    env.works = works()


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


def source_of(module: str, name: str) -> tuple[str, int, int] | None:
    """File, first and last line of the definition of a public name; None for what is no definition."""
    thing: object = sys.modules.get(module)
    for part in name.split("."):
        thing = getattr(thing, part, None)
    thing = inspect.unwrap(thing.fget if isinstance(thing, property) else thing)
    try:
        lines, first = inspect.getsourcelines(thing)
        path = Path(inspect.getsourcefile(thing)).resolve().relative_to(ROOT)
    except (TypeError, OSError, ValueError):
        return None
    return path.as_posix(), first, first + len(lines) - 1


def link_source(app: Sphinx, config) -> None:
    """Give each definition a link to its lines in the repository."""
    theme = config.html_theme_options
    base = f"{address(theme['repository_url'])}/blob/{theme['repository_branch']}"

    def resolve(domain: str, info: dict[str, str]) -> str | None:
        found = source_of(info["module"], info["fullname"]) if domain == "py" else None
        return found and "{}/{}#L{}-L{}".format(base, *found)

    config.linkcode_resolve = resolve


def setup(app: Sphinx) -> dict:
    """Register the steps."""
    app.connect("config-inited", link_source)
    app.connect("env-before-read-docs", read_works)
    app.connect("autodoc-process-docstring", draw, priority=900)  # after napoleon
    app.connect("autodoc-process-signature", hide_private)
    app.connect("missing-reference", link_public)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
