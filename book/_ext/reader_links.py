"""Where the words of a chapter lead from a notebook: papers, the glossary, pages of the site, chapters.

A reader's notebook lies on Binder, on Colab or in a downloads folder. Links to chapters stay in its folder;
all others are full addresses.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import mdformat.renderer
import nbformat
import yaml
from markdown_it.token import Token
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser
from pybtex.database import Entry, parse_file
from repository import address, colab_cell, site_address
from sphinx.util.nodes import _make_id

OBJECT = {"func", "class", "meth", "attr", "data", "exc", "mod", "obj"}


class ReaderError(ValueError):
    """Something in a chapter that a reader's notebook cannot show."""


def author_year(entry: Entry) -> tuple[str, str]:
    """Who wrote a reference, as the site says it, and when."""
    people = [[*person.rich_prelast_names, *person.rich_last_names] for person in entry.persons["author"]]
    names = [" ".join(map(str, person)) for person in people]
    return names[0] + " *et al.*" if len(names) > 2 else " and ".join(names), entry.fields["year"]


@dataclass(frozen=True)
class Book:
    """The folder of the chapters, and what their words refer to.

    Attributes:
        root: The repository.
        alone: Whether links to chapters lead to the site, for a notebook that does not lie among them.
    """

    root: Path
    alone: bool = False

    @property
    def folder(self) -> Path:
        """Where the chapters are."""
        return self.root / "book"

    @cached_property
    def config(self) -> dict:
        """What `_config.yml` says."""
        return yaml.safe_load((self.root / "_config.yml").read_text(encoding="utf-8"))

    @property
    def repository(self) -> str:
        """Address of the repository, or of the fork that builds."""
        return address(self.config["repository"]["url"])

    @property
    def install(self) -> str:
        """The line that installs the package in a running notebook."""
        return colab_cell(self.repository, self.config["repository"]["branch"])

    @cached_property
    def parser(self):
        """The parser of the site, with the same extensions."""
        extensions = set(self.config["parse"]["myst_enable_extensions"])
        return create_md_parser(MdParserConfig(enable_extensions=extensions), mdformat.renderer.MDRenderer)

    @cached_property
    def notebooks(self) -> dict[str, Path]:
        """{"02_svd_approximation": its file}, in the order of their names."""
        return {path.stem: path for path in sorted(self.folder.glob("*.ipynb"))}

    @cached_property
    def references(self) -> dict[str, Entry]:
        """The entries of the bibliography."""
        found: dict[str, Entry] = {}
        for name in self.config["bibtex_bibfiles"]:
            found |= dict(parse_file(str(self.root / name), "bibtex").entries)
        return found

    @cached_property
    def terms(self) -> dict[str, str]:
        """{term in small letters: its name in the glossary}."""
        tokens = self.parser.parse((self.folder / "glossary.md").read_text(encoding="utf-8"))
        lists = [t.content for t in tokens if t.type == "fence" and t.info.split()[0] == "{glossary}"]
        lines = [line for text in lists for line in text.splitlines()]
        return {line.lower(): line for line in lines if line[:1].strip() and line[0] not in ":."}

    def page(self, name: str, fragment: str = "") -> str:
        """Address of a page of the site."""
        return f"{site_address(self.repository)}book/{name}.html" + (f"#{fragment}" if fragment else "")

    def cite(self, keys: str, form: str) -> str:
        """Markdown of a citation: `form` is "t" in a sentence, "p" in brackets."""
        cited = []
        for key in map(str.strip, keys.split(",")):
            if key not in self.references:
                raise ReaderError(f"{key} is cited and is not in the bibliography")
            entry = self.references[key]
            who, year = author_year(entry)
            doi, url = entry.fields.get("doi"), entry.fields.get("url")
            where = f"https://doi.org/{doi}" if doi else url or self.page("bibliography")
            where = where.replace("(", "%28").replace(")", "%29")
            cited.append(f"[{who} ({year})]({where})" if form == "t" else f"[{who}, {year}]({where})")
        return ", ".join(cited) if form == "t" else "(" + "; ".join(cited) + ")"

    def term(self, text: str) -> str:
        """Address of a term of the glossary."""
        if text.lower() not in self.terms:
            raise ReaderError(f"{text} is a term that the glossary does not have")
        # the site's glossary names its anchors so
        return self.page("glossary", f"term-{_make_id(self.terms[text.lower()])}")

    def documented(self, name: str) -> str:
        """Address where the docstring of a public name is shown."""
        short = name.rpartition(".")[2]
        for path in sorted(self.folder.glob("api*.md")):
            if re.search(
                rf"^\.\. auto\w+:: (?:[\w.]*\.)?{short}\s*$", path.read_text(encoding="utf-8"), re.M
            ):
                return self.page(path.stem, name)
        raise ReaderError(f"{name} is a name that no page of functions shows")

    def target(self, href: str) -> str:
        """Where a link of a chapter leads from a reader's notebook."""
        parts = urlsplit(href)
        if parts.scheme or not parts.path:
            return href
        path = PurePosixPath(parts.path)
        fragment = f"#{parts.fragment}" if parts.fragment else ""
        if path.stem in self.notebooks and path.suffix in {"", ".ipynb"}:
            return self.page(path.stem) if self.alone else f"{path.stem}.ipynb{fragment}"
        if (self.folder / f"{path.stem}.md").is_file() and path.suffix in {"", ".md"}:
            return self.page(path.stem, parts.fragment)
        if href in self.labels:
            return self.labels[href][1]
        raise ReaderError(f"{href} is a link to no page, notebook or label of the book")

    def title(self, href: str) -> str:
        """What a link without a text of its own says: the title of a page, or of a label."""
        if href in self.labels:
            return self.labels[href][0]
        stem = PurePosixPath(urlsplit(href).path).stem
        if stem in self.notebooks:
            text = self.markdown(self.notebooks[stem])
        else:
            text = (self.folder / f"{stem}.md").read_text(encoding="utf-8")
        tokens = self.parser.parse(text)
        return next(tokens[i + 1].content for i, t in enumerate(tokens) if t.type == "heading_open")

    def markdown(self, path: Path) -> str:
        """All the prose of a notebook as one text."""
        cells = nbformat.read(path, as_version=4).cells
        return "\n\n".join(c.source for c in cells if c.cell_type == "markdown")

    @cached_property
    def labels(self) -> dict[str, tuple[str, str]]:
        """{label: (what it is called, where it is)} of the headings, boxes and figures of all notebooks."""
        found: dict[str, tuple[str, str]] = {}
        for name, path in self.notebooks.items():
            for label, said in labels_in(self.parser.parse(self.markdown(path))):
                if label in found:
                    raise ReaderError(f"{label} is a label in {found[label][1]} and in {name}.ipynb")
                found[label] = said, f"{name}.ipynb"
        return found


def labels_in(tokens: list[Token]) -> Iterator[tuple[str, str]]:
    """Pairs (label, name of the thing) among the blocks of a text."""
    for i, token in enumerate(tokens):
        if token.type == "myst_target":
            heads = tokens[i + 1].type == "heading_open"
            yield token.content, tokens[i + 2].content if heads else token.content
        elif token.type in {"fence", "colon_fence"} and token.info.startswith("{"):
            kind, _, title = token.info[1:].partition("}")
            for line in token.content.splitlines():
                if not line.startswith(":"):
                    break
                option, _, value = line[1:].partition(":")
                if option in {"label", "name"}:
                    word = kind.removeprefix("prf:").capitalize()
                    yield value.strip(), f"{word} ({title.strip()})" if title.strip() else word
