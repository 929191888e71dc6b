"""One citation style: author and year in the text, and a list that begins with author and year.

pybtex's own styles put the year last and label the works, [EY36]. Here a reader who has seen "Eckart and
Young (1936)" finds exactly that at the head of an entry.
"""

from dataclasses import dataclass, field

from pybtex.plugin import register_plugin
from pybtex.style.formatting.unsrt import Style, pages, toplevel
from pybtex.style.template import field as part
from pybtex.style.template import (
    first_of,
    join,
    names,
    optional,
    optional_field,
    sentence,
    tag,
    words,
)
from sphinx.application import Sphinx
from sphinxcontrib.bibtex.plugin import register_plugin as register_reference_style
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle

NAME = "author_year_list"
PLACE = first_of[
    optional[join[part("volume"), optional["(", part("number"), ")"], ":", pages]],
    optional[join[part("volume"), optional["(", part("number"), ")"]]],
    optional[words["pages", pages]],
]


class AuthorYearStyle(Style):
    """Surname, initials (year). Title. Where it appeared. DOI or address."""

    default_name_style = "lastfirst"
    default_sorting_style = "author_year_title"

    def __init__(self, **options):
        super().__init__(**options | {"abbreviate_names": True})

    def who_and_when(self):
        """Authors and year."""
        who = names("author", sep=", ", sep2=" and ", last_sep=", and ")
        return words[who, join["(", part("year"), ")."]]

    def get_article_template(self, e):
        """Journal in italics, with volume, number and pages."""
        where = sentence[tag("em")[part("journal")], optional[PLACE]]
        return toplevel[
            self.who_and_when(), self.format_title(e, "title"), where, sentence[optional_field("note")],
            self.format_web_refs(e),
        ]  # fmt: skip

    def get_inproceedings_template(self, e):
        """Proceedings in italics."""
        where = words[
            "In", sentence[tag("em")[part("booktitle")], optional[PLACE], optional_field("publisher")]
        ]
        return toplevel[
            self.who_and_when(), self.format_title(e, "title"), where, sentence[optional_field("note")],
            self.format_web_refs(e),
        ]  # fmt: skip

    def get_book_template(self, e):
        """Title in italics, publisher, edition."""
        who = sentence[part("publisher"), self.format_edition(e)]
        return toplevel[self.who_and_when(), self.format_btitle(e, "title"), who, self.format_web_refs(e)]

    def get_misc_template(self, e):
        """Anything else, a preprint or a program."""
        how = sentence[optional_field("howpublished"), optional_field("note")]
        return toplevel[self.who_and_when(), self.format_title(e, "title"), how, self.format_web_refs(e)]


def _round() -> BracketStyle:
    return BracketStyle(left="(", right=")", sep="; ")


@dataclass
class RoundReferenceStyle(AuthorYearReferenceStyle):
    """Author and year in round brackets."""

    bracket_parenthetical: BracketStyle = field(default_factory=_round)
    bracket_textual: BracketStyle = field(default_factory=_round)
    bracket_author: BracketStyle = field(default_factory=_round)
    bracket_label: BracketStyle = field(default_factory=_round)
    bracket_year: BracketStyle = field(default_factory=_round)


def setup(app: Sphinx) -> dict:
    """Make both known by one name."""
    register_plugin("pybtex.style.formatting", NAME, AuthorYearStyle)
    register_reference_style("sphinxcontrib.bibtex.style.referencing", NAME, RoundReferenceStyle)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
