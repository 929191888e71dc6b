"""Formulas of a docstring, typed as one types them, as TeX: `help` can be read, and the page draws them.

A formula is a run of mathematical tokens: letters, numbers, operators, brackets, and a word only where an
operator holds it. A call is code. What is neither stays as it is.
"""

import re
from dataclasses import dataclass

GREEK = "phi lambda alpha beta delta mu tau sigma".split()
TEX = {
    "<=": r"\le ", ">=": r"\ge ", "->": r"\to ", "<-": r"\leftarrow ", "==": "=", "*": r"\cdot ",
    "~": r"\approx ", "...": r"\dots ", " x ": r" \times ", "eps": r"\varepsilon ", "Vh": r"\mathit{Vh}",
    "sum": r"\sum", "min": r"\min", "max": r"\max", "log": r"\log ", "exp": r"\exp ", "E": r"\mathbb{E}",
    **{letter: rf"\{letter} " for letter in GREEK},
    **{name: rf"\operatorname{{{name}}}" for name in ("diag", "tr", "argmax", "mean")},
}  # fmt: skip
SIGNS = {"->": "\u2192", " x ": " \u00d7 ", "<=": "\u2264", ">=": "\u2265"}
TOKEN = re.compile(
    r"(?P<bullet>(?:^|(?<=\n))[ ]*[-*][ ])"
    r"|(?P<code>``.*?``|`[^`]*`_{0,2}|:[\w:]+:`[^`]*`)"
    r"|(?P<word>[A-Za-z]{1,3}\.[a-z]\.|\d+-[A-Za-z][\w-]*|[A-Za-z]\w*(?:-\w+)+|(?<=\w)'[st]\b|(?<=`)'?[a-z]+\b)"
    r"|(?P<index>[_^](?:\{[^}]*\}|\([^)]*\)|-?\d/\d|in\b|out\b|[a-z]{2}(?!\w)|-?\w(?!\w)))"
    r"|(?P<operator><=|>=|->|<-|==|\.\.\.|\|\||[=<>~*/+]|(?<=[\s(\[{])-(?=[\w\s(])"
    r"|(?<=[\w)\]`])(?<!\bof)(?<![A-Z]) x (?=[\w(`]))"
    r"|(?P<letter>Vh(?![a-z])|(?<![A-Za-z])(?:"
    + "|".join(GREEK)
    + r"|eps|mn|nkp|[A-Za-z])(?![A-Za-z\d]|_(?!out\b)[a-z]{3}))"
    r"|(?P<function>(?<![A-Za-z\d])(?:sum(?=_)|argmax(?=[( ])|(?:min|max|sqrt|diag|tr|log|exp|mean)(?=\()))"
    r"|(?P<bracket>[()\[\]{}])"
    r"|(?P<number>\d+(?:,\d{3})*(?:\.\d+)?)"
    r"|(?P<comma>[,;])"
    r"|(?P<prime>(?<=\w)'(?![a-z]))"
    r"|(?P<blank>\s+)"
    r"|(?P<name>[A-Za-z]\w*(?:\.\w+)*)"
    r"|(?P<other>.)",
    re.S,
)
MATHS = {"index", "operator", "letter", "function", "bracket", "number", "prime"}
RELATIONS = {"<=", ">=", "<", ">"}
BINARY = {"*", "/", "+", "-", "=", "==", " x ", "~"}
BETWEEN = {"core"}  # a matrix that has a word for its name
ARTICLES = {"a", "A", "I"}


@dataclass
class Token:
    """A piece of a docstring: its kind and its text."""

    kind: str
    text: str

    @property
    def opens(self) -> bool:
        """Whether it is an opening bracket."""
        return self.kind == "bracket" and self.text in "([{"


NOTHING = Token("other", "")


def _near(tokens: list[Token], i: int, step: int) -> Token:
    """The next token before (step -1) or behind (step 1) that is no blank."""
    i += step
    while 0 <= i < len(tokens) and tokens[i].kind == "blank":
        i += step
    return tokens[i] if 0 <= i < len(tokens) else NOTHING


def _closing(tokens: list[Token], i: int) -> int:
    """Position of the bracket that closes the one at i; 0 where the text ends before."""
    depth = 0
    for j in range(i, len(tokens)):
        if tokens[j].kind == "bracket":
            depth += 1 if tokens[j].opens else -1
            if depth == 0:
                return j
    return 0


def _held(tokens: list[Token], i: int) -> bool:
    """Whether a word is part of a formula, as `energy` in `s >= energy * t`, and `core` in `U core V`."""
    before, after = _near(tokens, i, -1), _near(tokens, i, 1)
    if tokens[i].text in BETWEEN:
        return before.kind in ("letter", "index") and after.kind in ("letter", "bracket")
    if tokens[i + 1 : i + 2] and tokens[i + 1].kind == "index":
        return True
    if tokens[i + 1 : i + 2] and tokens[i + 1].text == "(":
        return before.text in BINARY  # otherwise it is a call
    return before.text in BINARY | RELATIONS or after.text in BINARY


def _is_tuple(inside: list[Token]) -> bool:
    """Whether a bracket holds a shape, as (N, features) does."""
    parts = [t for t in inside if t.kind != "blank"]
    items, commas = parts[::2], parts[1::2]
    shape = any(t.kind == "letter" for t in items) and all(
        t.kind in ("letter", "name", "number") for t in items
    )
    return bool(commas) and shape and all(t.text == "," for t in commas)


def _marked(tokens: list[Token]) -> list[bool]:
    """Which tokens may belong to a formula."""
    maths = [t.kind in MATHS or (t.kind == "name" and _held(tokens, i)) for i, t in enumerate(tokens)]
    for i, token in enumerate(tokens):
        if not token.opens:
            continue
        end, before = _closing(tokens, i), tokens[i - 1] if i else NOTHING
        inside = tokens[i + 1 : end]
        behind = tokens[end + 1].kind if 0 < end < len(tokens) - 1 else ""
        applied = before.kind in ("function", "letter") or behind == "index"
        plain = all(maths[j] or tokens[j].kind in ("blank", "comma") for j in range(i, end))
        call = before.kind == "name" and not maths[i - 1]
        good = end and not call and (plain or _is_tuple(inside) or applied)
        if good and not any(t.kind in ("code", "bullet") for t in inside):
            maths[i : end + 1] = [True] * (end + 1 - i)
        else:
            maths[i] = False
            if end:
                maths[end] = False
    opened = 0
    for i, token in enumerate(tokens):  # a bracket that nothing opened is one of the sentence
        if token.kind == "bracket" and maths[i]:
            opened += 1 if token.opens else -1
            if opened < 0:
                maths[i], opened = False, 0
    return maths


def _at_the_edge(tokens: list[Token], i: int, first: bool) -> bool:
    """Whether a token does not belong to a formula that begins or ends with it."""
    token = tokens[i]
    if token.kind == "blank":
        return True
    if token.kind == "operator" and token.text not in ("||", "..."):
        return not (first and token.text in RELATIONS)
    if token.text in ARTICLES and token.kind == "letter" and first:
        after = _near(tokens, i, 1)
        blank = tokens[i + 1 : i + 2] and tokens[i + 1].kind == "blank"
        return bool(blank) and after.kind not in ("operator", "bracket", "letter")
    return False


def _is_formula(run: list[Token]) -> bool:
    kinds = {t.kind for t in run}
    if not kinds & {"letter", "function", "index"}:
        return run != [] and run[0].text in RELATIONS and "number" in kinds
    return not (len(run) == 1 and run[0].text in ARTICLES)


def _runs(tokens: list[Token]) -> dict[int, int]:
    """The formulas: where each begins, and where it has ended."""
    maths, found, i = _marked(tokens), {}, 0
    while i < len(tokens):
        start = end = i
        while end < len(tokens) and (
            maths[end] or (tokens[end].kind == "blank" and any(maths[end + 1 : end + 2]))
        ):
            end += 1
        i = max(end, i + 1)
        while start < end and _at_the_edge(tokens, start, True):
            start += 1
        while end > start and _at_the_edge(tokens, end - 1, False):
            end -= 1
        if _is_formula(tokens[start:end]):
            found[start] = end
    return found


def _index(text: str) -> str:
    """An index or a power, in braces."""
    sign, inner = text[0], re.sub(r"^[{(](.*)[)}]$", r"\1", text[1:])
    if (sign, inner) == ("^", "T"):
        return r"^\top"
    if inner in ("in", "out"):
        return rf"_{{\text{{{inner}}}}}"
    return f"{sign}{{{inner if inner.isalpha() else tex(inner)}}}"


def _convert(run: list[Token]) -> str:
    out, norms, i = [], 0, 0
    while i < len(run):
        token, around = run[i], {t.kind for t in run[max(0, i - 1) : i + 2]}
        if token.kind == "index":
            out.append(_index(token.text))
        elif token.text == "sqrt":
            end = _closing(run, i + 1)
            out.append(rf"\sqrt{{{_convert(run[i + 2 : end])}}}")
            i = end
        elif token.text == "||":
            out.append(r" \rVert" if norms % 2 else r"\lVert ")
            norms += 1
        elif token.kind == "blank":
            spaced = around <= {"blank", "letter", "index", "bracket", "number", "function"}
            out.append(r"\ " if "name" in around and "operator" not in around else r"\," if spaced else " ")
        elif token.kind == "name":
            out.append(rf"\text{{{token.text}}}")
        elif token.text == "s" and run[i + 1 : i + 2] and run[i + 1].kind == "index":
            out.append(r"\sigma")  # a singular value, as the notation writes it
        elif token.text == "," and run[i + 1 : i + 2] and run[i + 1].text == ")":
            out.append("{,}")  # (r,) without the blank after a comma
        elif token.text in ("{", "}"):
            out.append("\\" + token.text)
        else:
            out.append(TEX.get(token.text, token.text) if token.kind in MATHS else token.text)
        i += 1
    return re.sub(r"\s+", " ", "".join(out)).strip()


def _tokens(text: str) -> list[Token]:
    return [Token(m.lastgroup or "other", m[0]) for m in TOKEN.finditer(text)]


def tex(text: str) -> str:
    """All of a text as one formula."""
    return _convert(_tokens(text))


def typeset(text: str) -> str:
    r"""Plain text as reStructuredText: W_r becomes :math:`W_{r}`, a call and a name with _ become code.

    What stands in backquotes stays code; elsewhere the signs that reStructuredText would read are escaped.
    """
    tokens = _tokens(text)
    runs, out, i = _runs(tokens), list[str](), 0

    def add(role: str, behind: int) -> None:
        before = out[-1][-1:] if out else " "
        after = tokens[behind].text[:1] if behind < len(tokens) else " "
        glue = "" if before.isspace() or before in "([{'\"/-" else r"\ "
        out.append(glue + role + (r"\ " if after.isalnum() or after in "_`(" else ""))

    while i < len(tokens):
        token, end = tokens[i], i + 1
        called = token.kind == "name" and tokens[end : end + 1] and tokens[end].text == "("
        if i in runs:
            end = runs[i]
            add(f":math:`{_convert(tokens[i:end])}`", end)
        elif called and _closing(tokens, end):
            end = _closing(tokens, end) + 1
            add(f"``{' '.join(''.join(t.text for t in tokens[i:end]).split())}``", end)
        elif token.kind == "code":
            add(token.text, end)
        elif token.kind == "name" and "_" in token.text:
            add(f"``{token.text}``", end)
        elif token.kind == "bullet":
            out.append(token.text)
        else:
            out.append(SIGNS.get(token.text, re.sub(r"([\\*|`_])", r"\\\1", token.text)))
        i = end
    return "".join(out)
