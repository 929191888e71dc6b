"""The reader's notebooks in a real JupyterLab, with a real kernel, by typing and looking.

One server and one page serve all tests; a notebook is opened as its double click would.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.resources import files
from pathlib import Path

import nbformat
import pytest
from headless import said
from test_notebooks import outside_solutions

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import reader_folders  # noqa: E402
import reader_notebooks as reader  # noqa: E402

BOOK = reader.Book(ROOT)
NAMES = list(BOOK.notebooks)
RUN = "02_svd_approximation"  # has figures, a slider, a failure on purpose, and takes 20 s
PATIENCE = 240_000  # ms: the machine may be busy
SETTINGS = {"notebook-extension/tracker": {"windowingMode": "none"}}  # the text of every cell is in the page
OPTIONS = ["--no-browser", "--ip=127.0.0.1", "--allow-root", "--IdentityProvider.token="]
OPTIONS += ["--LabApp.expose_app_in_browser=True", "--log-level=WARN"]
RAW = re.compile(r"\{[a-z][\w:-]*\}`?|^:[a-z]+:|^%|`{3,}|\$|\\\w+|&\w+;|<\w+|\]\(", re.M)

HERE = "[data-here] "  # the notebook that a test has opened
DO = "([name, options]) => jupyterapp.commands.execute(name, options).then(() => null)"
OPEN = """async (path) => {
  window.notebook?.dispose();  // without the question whether to save
  window.notebook = await jupyterapp.commands.execute('docmanager:open', { path });
  notebook.node.dataset.here = '';
  await notebook.context.ready;
}"""
SESSION = "notebook.sessionContext"
READY = """count => {
  const cells = [...document.querySelectorAll('HERE.jp-MarkdownCell')];
  const drawn = (cell) => cell.querySelector('.jp-MarkdownOutput')?.childNodes.length;
  return cells.length === count && cells.every(drawn);
}""".replace("HERE", HERE)
TEXT = """() => [...document.querySelectorAll('HERE.jp-MarkdownOutput')].map((seen) => {
  const copy = seen.cloneNode(true);
  copy.querySelectorAll('code, mjx-container, .jp-InternalAnchorLink').forEach((node) => node.remove());
  return copy.textContent;
}).join('\\n')""".replace("HERE", HERE)
DONE = """() => {
  const cells = [...document.querySelectorAll('HERE.jp-CodeCell')];
  const prompts = cells.map((c) => c.querySelector('.jp-InputArea-prompt').textContent);
  return prompts.length && prompts.every((text) => /\\d/.test(text));
}""".replace("HERE", HERE)


OUTPUTS = """() => {
  const cells = notebook.model.sharedModel.toJSON().cells;
  return cells.filter((cell) => cell.cell_type === 'code').map((cell) => cell.outputs);
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A reader's folder."""
    folder = tmp_path_factory.mktemp("reader") / "notebooks"
    reader_folders.lab(folder, BOOK)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    """Address of a JupyterLab in this environment, with settings of its own."""
    own = folder.parent
    for name, settings in SETTINGS.items():
        file = own / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(settings))
    places = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    places |= {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime"}
    places |= {"IPYTHONDIR": "ipython"}
    env = os.environ | {name: str(own / place) for name, place in places.items()}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        *OPTIONS,
        f"--port={port}",
        f"--ServerApp.root_dir={folder}",
    ]
    log = own / "log"
    with log.open("w") as told, subprocess.Popen(command, env=env, stdout=told, stderr=told) as lab:
        try:
            for _ in range(1200):
                if lab.poll() is not None:
                    pytest.fail(log.read_text())
                try:
                    urllib.request.urlopen(f"{address}/api").close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield address
        finally:
            lab.terminate()


@pytest.fixture(scope="module")
def page(browser, server):
    """JupyterLab with an empty desk."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.goto(f"{server}/lab?reset")
    page.wait_for_function("() => window.jupyterapp")
    page.evaluate("() => jupyterapp.restored.then(() => null)")
    yield page
    page.close()


def opened(page, name):
    """A notebook, with all its text drawn."""
    page.evaluate(OPEN, f"{name}.ipynb")
    cells = reader.notebook(BOOK.notebooks[name], BOOK).cells
    page.wait_for_function(READY, arg=sum(c.cell_type == "markdown" for c in cells))
    page.wait_for_function("() => !document.querySelector('mjx-container:empty')")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_raw_and_no_solution_in_sight(page, name):
    opened(page, name)
    text = page.evaluate(TEXT)
    assert len(text) > 1000 and RAW.findall(text) == []
    assert page.locator(f"{HERE}mjx-merror").count() == 0
    formulas = sum("$" in c.source for c in reader.notebook(BOOK.notebooks[name], BOOK).cells)
    assert page.locator(f"{HERE}mjx-container").count() >= formulas > 0
    assert page.locator(f"{HERE}details[open]").count() == 0
    seen = " ".join(page.locator(HERE).inner_text().split())
    chapter = nbformat.read(BOOK.notebooks[name], as_version=4)
    shared = "\n".join(outside_solutions(chapter))  # a solution may do again what the chapter did
    exercises = reader.read(BOOK.notebooks[name], BOOK).exercises.values()
    parts = [part.get("code", "") for exercise in exercises for part in exercise.solution]
    code = {line.strip() for part in parts for line in part.splitlines()}
    code = {line for line in code if len(line) > 30 and line not in shared}
    assert len(code) >= len(exercises) and {line for line in code if line in seen} == set()


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_it_can_be_read_in_both_themes(page, theme):
    opened(page, RUN)
    page.evaluate(DO, ["apputils:change-theme", {"theme": theme}])
    light = str(theme.endswith("Light")).lower()
    page.wait_for_function("light => document.body.dataset.jpThemeLight === light", arg=light)
    page.wait_for_timeout(500)  # the sheet of the theme is loaded after that
    for details in page.locator(f"{HERE}details").all():
        details.evaluate("node => { node.open = true }")
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    options = {"runOnly": ["color-contrast", "list", "link-name", "image-alt"], "resultTypes": ["violations"]}
    found = page.evaluate(
        "([include, options]) => axe.run({ include, exclude: ['mjx-container'] }, options)",
        [f"{HERE}.jp-MarkdownOutput", options],
    )
    assert [(v["id"], n["html"][:200]) for v in found["violations"] for n in v["nodes"]] == []


def test_an_explorer_that_is_not_trusted_says_so_and_moves_once_it_is(page, folder):
    kept = reader.text_of(reader.notebook(BOOK.notebooks[RUN], BOOK, outputs=True))
    (folder / "kept.ipynb").write_text(kept, encoding="utf-8")
    page.evaluate(OPEN, "kept.ipynb")
    explorer = page.locator(f"{HERE}.lowrank-explorer").first
    explorer.get_by_text(reader.SCRIPTS_OFF).wait_for()
    assert page.locator(f"{HERE}.lowrank-explorer input").count() == 0
    page.evaluate("() => { jupyterapp.commands.execute('notebook:trust') }")
    page.locator(".jp-Dialog").get_by_role("button", name="Trust").click()
    explorer.locator("input[type=range]").wait_for()
    assert page.get_by_text(reader.SCRIPTS_OFF).count() == 0


def change(page, cell, old, new):
    """Click into a line of a cell, write another one in its place, run the cell."""
    cell.locator(".cm-line", has_text=old).click()
    page.keyboard.press("Home")
    page.keyboard.press("Shift+End")
    page.keyboard.type(new)
    page.keyboard.press("Control+Enter")


def uncomment(page, cell, old):
    """Click into a line that is a comment, make it code, run the cell."""
    cell.locator(".cm-line", has_text=old).click()
    page.keyboard.press("Control+/")
    page.keyboard.press("Control+Enter")


def test_run_all_then_wrong_then_a_hint_then_right(page, folder):
    opened(page, RUN)
    page.evaluate(f"() => {SESSION}.ready.then(() => null)")
    page.evaluate(DO, ["notebook:run-all-cells", {}])
    page.wait_for_function(DONE)

    ran = page.evaluate(OUTPUTS)
    kept = reader.notebook(BOOK.notebooks[RUN], BOOK, outputs=True)
    stored = [cell.outputs for cell in kept.cells if cell.cell_type == "code"]
    made_here = [i for i, outputs in enumerate(stored) if not outputs and ran[i]]
    assert [said(outputs) for i, outputs in enumerate(ran) if i not in made_here] == [
        said(outputs) for i, outputs in enumerate(stored) if i not in made_here
    ]
    assert [said(ran[i]).splitlines()[1] for i in made_here] == ["chapter 2: 0 of 3 solved"]
    explorer = page.locator(f"{HERE}.lowrank-explorer").first
    before = explorer.inner_text()
    explorer.locator("input[type=range]").press("End")
    assert explorer.inner_text() != before

    cell = page.locator(f"{HERE}.jp-CodeCell", has_text='check("2.1", answer)').first
    told = cell.locator(".jp-OutputArea").first
    assert told.inner_text().strip() == "2.1: no answer yet."
    change(page, cell, "answer = None", "answer = 0.01")
    told.get_by_text("2.1: not yet").wait_for()
    uncomment(page, cell, "# hint(")
    told.get_by_text("Hint 1 of 2.").wait_for()
    assert not (folder / "lowrank-progress.json").exists()
    change(page, cell, "answer = 0.01", "answer = 0.1")
    told.get_by_text("2.1: right.").wait_for()
    assert json.loads((folder / "lowrank-progress.json").read_text()) == {"solved": ["2.1"]}

    uncomment(page, cell, "# solution(")
    offered = page.locator(f"{HERE}.jp-CodeCell", has_text="# The solution of 2.1").first
    offered.wait_for()
    code = reader.read(BOOK.notebooks[RUN], BOOK).exercises["2.1"].solution[1]["code"]
    assert offered.locator(".cm-line").nth(1).inner_text() == code.splitlines()[0]
    assert code.splitlines()[0] in told.inner_text()
    assert RAW.findall(told.locator(".jp-RenderedMarkdown").first.inner_text()) == []

    page.evaluate(f"() => {SESSION}.session.kernel.restart().then(() => null)")
    again = page.locator(f"{HERE}.jp-CodeCell", has_text="progress()").first
    again.locator(".cm-line", has_text="progress()").click()
    page.keyboard.press("Control+Enter")
    again.get_by_text("chapter 2: 1 of 3 solved (2.1)").wait_for()
