"""The HTML of an explorer: a page's own script draws it, with neither network nor kernel."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any


def page(kind: str, data: Mapping[str, Any], told: str) -> str:
    """What an explorer shows: its data as an attribute, the shared script and that of its kind.

    Args:
        kind: ``"rank"``, ``"budget"`` or ``"kernel"``.
        data: What is embedded; ``data["slider"]`` is read by ``page.js``, the rest by the kind's script.
        told: Sentence for pages without scripts.
    """
    embedded = html.escape(json.dumps(data, separators=(",", ":")))
    return (
        f'<div class="lowrank-explorer mathjax_ignore" data-kind="{kind}" data-explorer="{embedded}">\n'
        f"<p>{html.escape(told)}</p>\n</div>\n"
        f"<script>\n{_script('page')}{_script(kind)}</script>"
    )


@cache
def _script(name: str) -> str:
    return files("lowrank_utils.explorers").joinpath(f"{name}.js").read_text(encoding="utf-8")
