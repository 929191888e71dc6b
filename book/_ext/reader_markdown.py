"""A chapter's MyST as the plain Markdown that JupyterLab, Notebook 7, Colab, VS Code and GitHub all show.

The site's own parser reads the text, and mdformat writes it again. A box becomes a quotation with a bold
title, a folded one `<details>`; both read well where styles are stripped. What has no face here, be it a
directive, a role or a kind of block, is an error: raw text is never passed on.
"""

import base64
import mimetypes
import re
from collections.abc import Callable
from html import escape
from types import SimpleNamespace

from docutils.parsers.rst import Directive
from markdown_it.token import Token
from mdformat.renderer import DEFAULT_RENDERERS, MDRenderer, RenderContext, RenderTreeNode
from myst_parser.parsers.directives import parse_directive_text
from reader_links import OBJECT, Book, ReaderError

ADMONITIONS = set("attention caution danger error hint important note seealso tip warning".split())
PROOFS = set(
    "algorithm assumption axiom conjecture corollary criterion definition example lemma notation observation "
    "proof property proposition remark theorem".split()
)
OPTIONS = set("alt align class figclass figwidth height label name nonumber scale target width".split())


class Shape:
    """Attachments that a cell takes with it, and the book that its words refer to."""

    def __init__(self, book: Book, here: str):
        self.book, self.here, self.attachments = book, here, dict[str, dict[str, str]]()


def directive(token: Token) -> tuple[str, str, dict, str] | None:
    """Name, argument, options and body of a directive; None if the block is code."""
    if token.type not in {"fence", "colon_fence"} or not token.info.startswith("{"):
        return None
    name, _, first = token.info[1:].partition("}")

    class Any(Directive):
        optional_arguments, final_argument_whitespace, has_content = 1, True, True
        option_spec = {option: str for option in OPTIONS}

    parsed = parse_directive_text(Any, first.strip(), token.content)
    if parsed.warnings:
        raise ReaderError(f"{{{name}}}: {parsed.warnings[0].msg}")
    return name, " ".join(parsed.arguments), parsed.options, "\n".join(parsed.body)


def box(title: str, body: str, folded: bool) -> str:
    """A box with a title: a quotation, or a part that unfolds."""
    if folded:
        plain = escape(re.sub(r"[*_`\\]", "", title), quote=False)
        return f"<details>\n<summary>{plain}</summary>\n\n{body}\n\n</details>"
    lines = f"**{title}**\n\n{body}".splitlines()
    return "\n".join(f"> {line}" if line else ">" for line in lines)


def _inside(node: RenderTreeNode, context: RenderContext) -> bool:
    """Whether a block stands in a box, a list or a quotation: there a formula has to be one line."""
    return bool(context.env["boxed"] or node.parent and node.parent.type != "root")


def _display_math(tex: str, one_line: bool) -> str:
    lines = [line.strip() for line in tex.strip().splitlines()]
    if any(re.search(r"(?<!\\)%", line) for line in lines):
        raise ReaderError(f"a formula with a TeX comment: {tex.strip()[:40]!r}")
    return f"$${' '.join(lines)}$$" if one_line else "$$\n" + "\n".join(lines) + "\n$$"


def _math_block(node: RenderTreeNode, context: RenderContext) -> str:
    return _display_math(node.content, _inside(node, context))


def _math_inline(node: RenderTreeNode, context: RenderContext) -> str:
    return f"${node.content}$"


def _text(node: RenderTreeNode, context: RenderContext) -> str:
    return DEFAULT_RENDERERS["text"](node, context).replace("$", "\\$")


def _link(node: RenderTreeNode, context: RenderContext) -> str:
    book = context.env["shape"].book
    if node.info == "auto":
        return DEFAULT_RENDERERS["link"](node, context)
    text = "".join(child.render(context) for child in node.children) or book.title(node.attrs["href"])
    return f"[{text}]({book.target(node.attrs['href'])})"


def _attach(path: str, alt: str, context: RenderContext) -> str:
    """A picture of the book, which the cell takes with it."""
    shape = context.env["shape"]
    if len(alt) < 20:
        raise ReaderError(f"{path} is a picture without an alt text")
    file = shape.book.folder / path
    if not file.is_file():
        raise ReaderError(f"{path} is a picture that is not there")
    kind = mimetypes.guess_type(file.name)[0] or "image/png"
    shape.attachments[file.name] = {kind: base64.b64encode(file.read_bytes()).decode()}
    return f"![{alt}](attachment:{file.name})"


def _image(node: RenderTreeNode, context: RenderContext) -> str:
    src = str(node.attrs["src"])
    if src.startswith(("http:", "https:")):
        return DEFAULT_RENDERERS["image"](node, context)
    return _attach(src, node.content, context)


def _split(content: str) -> tuple[str, str]:
    """Text and target of a role such as {term}`factors <factor>`."""
    found = re.fullmatch(r"(.*?)\s*<([^<>]+)>", content, re.S)
    return (found[1], found[2]) if found else (content, content)


def _role(node: RenderTreeNode, context: RenderContext) -> str:
    """What a role says, as a link or as a letter."""
    shape = context.env["shape"]
    book, name, content = shape.book, node.meta["name"], " ".join(node.content.split())
    text, target = _split(content)
    if name in {"cite:t", "cite:p", "cite"}:
        return book.cite(content, "t" if name == "cite:t" else "p")
    if name == "term":
        return f"[{text}]({book.term(target)})"
    if name == "doc":
        return f"[{text if text != target else book.title(target)}]({book.target(target)})"
    if name in {"ref", "numref", "prf:ref"}:
        if target not in book.labels:
            raise ReaderError(f"{target} is a label that no notebook has")
        said, where = book.labels[target]
        said = text if text != target and name == "ref" else said
        return said if where == f"{shape.here}.ipynb" else f"[{said}]({where})"
    if name == "math":
        return f"${content}$"
    if name in {"sub", "sup", "kbd"}:
        return f"<{name}>{escape(content)}</{name}>"
    if name == "abbr":
        return f"{content.partition('(')[0].strip()} ({content.partition('(')[2]}"
    if name.removeprefix("py:") in OBJECT:
        return f"[`{text.lstrip('~')}`]({book.documented(target.lstrip('~'))})"
    raise ReaderError(f"{{{name}}}`{content[:40]}` is a role that a reader's notebook cannot show")


def _cell(node: RenderTreeNode, context: RenderContext) -> str:
    return "".join(child.render(context) for child in node.children).replace("\n", " ")


def _table(node: RenderTreeNode, context: RenderContext) -> str:
    """A table in the form that GitHub made common."""
    rows = [row for part in node.children for row in part.children]
    marks = {"text-align:right": "--:", "text-align:center": ":-:", "text-align:left": ":--"}
    ruler = [marks.get(str(cell.attrs.get("style", "")), "---") for cell in rows[0].children]
    texts = [[_cell(cell, context) for cell in row.children] for row in rows]
    for cell in (cell for row in texts for cell in row):
        if re.search(r"(?<!\\)\|", cell):
            raise ReaderError(f"a table cell with a bare |, which splits it: {cell[:40]!r}")
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (texts[0], ruler, *texts[1:]))


def _definitions(node: RenderTreeNode, context: RenderContext) -> str:
    """A list of words and what they mean: notebooks know no such list."""
    lines = []
    for child in node.children:
        inner = ("" if child.type == "dt" else "\n\n").join(c.render(context) for c in child.children)
        if child.type == "dt":
            lines.append(f"- **{inner}**")
        else:
            lines += ["", *(f"  {line}" if line else "" for line in inner.splitlines())]
    return "\n".join(lines)


def _code(node: RenderTreeNode, context: RenderContext) -> str:
    """A block of code as it is; a directive by its name."""
    parsed = directive(node.token)
    if parsed is None:
        if node.type == "colon_fence":
            raise ReaderError(f"a colon fence that is no directive: {node.info!r}")
        return DEFAULT_RENDERERS["fence"](node, context)
    name, argument, options, body = parsed
    if name in DIRECTIVES:
        return DIRECTIVES[name](name, argument, options, body, context)
    raise ReaderError(f"{{{name}}} is a directive that a reader's notebook cannot show")


def _within(text: str, context: RenderContext) -> str:
    """Markdown of the inside of a box."""
    return _render(text, context.env["shape"], boxed=True)


def _admonition(name: str, argument: str, options: dict, body: str, context: RenderContext) -> str:
    folded = name == "dropdown" or "dropdown" in options.get("class", "").split()
    if name not in ADMONITIONS:
        return box(_within(argument, context), _within(body, context), folded)
    title = "See also" if name == "seealso" else name.capitalize()
    return box(title, _within(f"{argument}\n{body}", context), folded)


def _numbered(name: str, argument: str, options: dict, body: str, context: RenderContext) -> str:
    word = name.removeprefix("prf:").capitalize()
    title = f"{word}: {_within(argument, context)}" if argument else word
    return box(title, _within(body, context), "dropdown" in options.get("class", "").split())


def _figure(name: str, argument: str, options: dict, body: str, context: RenderContext) -> str:
    picture = _attach(argument, " ".join(options.get("alt", "").split()), context)
    caption = _within(body, context)
    return f"{picture}\n\n{caption}" if caption else picture


def _epigraph(name: str, argument: str, options: dict, body: str, context: RenderContext) -> str:
    lines = _within(f"{argument}\n{body}".strip(), context).splitlines()
    return "\n".join(f"> {line}" if line else ">" for line in lines)


def _formula(name: str, argument: str, options: dict, body: str, context: RenderContext) -> str:
    if "label" in options:
        raise ReaderError(f"{options['label']} is the label of a formula: notebooks have no numbers for them")
    return _display_math(f"{argument}\n{body}", context.env["boxed"])


def _listing(name: str, argument: str, options: dict, body: str, context: RenderContext) -> str:
    return f"```{argument}\n{body}\n```"


DIRECTIVES: dict[str, Callable[[str, str, dict, str, RenderContext], str]] = {
    **dict.fromkeys([*sorted(ADMONITIONS), "admonition", "dropdown", "topic", "sidebar"], _admonition),
    **dict.fromkeys([*(f"prf:{kind}" for kind in sorted(PROOFS)), "exercise"], _numbered),
    **dict.fromkeys(("figure", "image"), _figure),
    **dict.fromkeys(("code", "code-block"), _listing),
    **dict.fromkeys(("epigraph", "pull-quote", "highlights"), _epigraph),
    "math": _formula,
}


def _nothing(node: RenderTreeNode, context: RenderContext) -> str:
    return ""


def _children(node: RenderTreeNode, context: RenderContext) -> str:
    return "".join(child.render(context) for child in node.children)


def _tagged(node: RenderTreeNode, context: RenderContext) -> str:
    if node.content.startswith("<input"):  # a task of a list, which the parser turned into HTML
        return "[x]" if "checked" in node.content else "[ ]"
    return node.content


RENDERERS = {
    "amsmath": lambda node, context: _display_math(
        re.sub(r"(begin|end)\{(align|gather)\*?\}", r"\1{\2ed}", node.content), _inside(node, context)
    ),
    "colon_fence": _code,
    "dl": _definitions,
    "fence": _code,
    "html_inline": _tagged,
    "image": _image,
    "link": _link,
    "math_block": _math_block,
    "math_inline": _math_inline,
    "math_inline_double": lambda node, context: f"$${node.content}$$",
    "myst_line_comment": _nothing,
    "myst_role": _role,
    "myst_target": _nothing,
    "span": _children,
    "table": _table,
    "text": _text,
}
KNOWN = set(RENDERERS) | set(DEFAULT_RENDERERS) | set("dd dt tbody td th thead tr".split())


def _check(node: RenderTreeNode) -> None:
    """Complain of a kind of block that has no face here."""
    if node.type not in KNOWN:
        raise ReaderError(f"{node.type} is a kind of block that a reader's notebook cannot show")
    for child in node.children:
        _check(child)


def _render(text: str, shape: Shape, boxed: bool) -> str:
    env = {"shape": shape, "boxed": boxed}
    tokens = shape.book.parser.parse(text, env)
    _check(RenderTreeNode(tokens))
    options = {"parser_extension": [SimpleNamespace(RENDERERS=RENDERERS)], "mdformat": {"wrap": "keep"}}
    return MDRenderer().render(tokens, options, env).strip()


def render(text: str, book: Book, here: str = "") -> tuple[str, dict[str, dict[str, str]]]:
    """Plain Markdown of a text in MyST, and the pictures that it takes with it.

    Args:
        text: What a Markdown cell of a chapter holds.
        book: What its words refer to.
        here: Name of the chapter, without ``.ipynb``.

    Raises:
        ReaderError: Something that has no face in a notebook, or a reference to nothing.
    """
    shape = Shape(book, here)
    return _render(text, shape, boxed=False), shape.attachments
