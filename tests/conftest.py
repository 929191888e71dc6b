"""Fixtures of the site tests: a site that is up to date, a server for it, and a browser."""

import functools
import http.server
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zlib
from collections import Counter
from pathlib import Path

import budgets
import figures
import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build" / "html"
LONG = ("coursework", "site", "reader", "book")  # folders whose modules and chapters take 10 s and more
FLAGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
).split()


def pytest_configure(config: pytest.Config) -> None:
    """Measure the notebooks and compare their figures; with ROUNDING_NOISE=16:0 run them under noise.

    Registered by hand, because a plugin that is named here would see this folder's tests only. Each worker,
    and each kernel, has one thread for numpy too: two workers with two threads each wait for each other, and
    small decompositions take twenty times as long.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    config.pluginmanager.register(budgets)
    config.pluginmanager.register(figures)
    if os.environ.get("ROUNDING_NOISE"):
        import rounding_noise  # and torch, which the process that only hands out tests does without

        os.environ.update(rounding_noise.startup(Path(tempfile.mkdtemp(prefix="noise-"))))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is long comes first, so that no worker ends alone with it (xdist orders by the number of tests).

    Of the others those with few tests have the slow ones: processes, kernels, examples by the hundred. A
    module stays in one piece: `--dist loadscope --no-loadscope-reorder` hands it to one worker.
    """
    tests = Counter(item.path for item in items)

    def place(item: pytest.Item) -> tuple[int, int]:
        room = item.path.parent.name
        return (LONG.index(room), -tests[item.path]) if room in LONG else (len(LONG), tests[item.path])

    items.sort(key=place)


def _newest_source() -> float:
    files = [ROOT / "_config.yml", ROOT / "_toc.yml", *(ROOT / "book").rglob("*")]
    return max(f.stat().st_mtime for f in files if f.is_file() and "__pycache__" not in f.parts)


@pytest.fixture(scope="session")
def site() -> Path:
    """Folder of the built site; builds it when it is missing or older than its sources."""
    lock = Path(tempfile.gettempdir()) / f"site-{zlib.crc32(bytes(ROOT))}.lock"
    with FileLock(lock):
        index = SITE / "searchindex.js"
        if not index.is_file() or index.stat().st_mtime < _newest_source():
            shutil.rmtree(ROOT / "_build", ignore_errors=True)
            command = [Path(sys.executable).with_name("jupyter-book"), "build", "-q", "-n", "-W"]
            ran = subprocess.run(
                [*command, "--keep-going", "."], cwd=ROOT, capture_output=True, text=True, timeout=300
            )
            if ran.returncode:  # a second build would find nothing to do, and pass
                shutil.rmtree(ROOT / "_build", ignore_errors=True)
                pytest.fail(ran.stdout + ran.stderr)
    return SITE


@pytest.fixture(scope="session")
def address(site: Path):
    """Address of a local server for the site."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    """Debian's chromium; without it the browser tests are skipped, or fail where CI=true."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "no chromium: the browser tests did not run (apt-get install chromium)"
        )
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=FLAGS)


@pytest.fixture(scope="session")
def new_page(browser):
    """Function that opens a page for a test that keeps nothing in the browser and leaves its clock alone.

    Pages that look alike share a context: a context of one's own takes half a second of a processor.
    """
    contexts = {}

    def new_page(**looks):
        key = repr(sorted(looks.items()))
        if key not in contexts:
            contexts[key] = browser.new_context(**looks)
        return contexts[key].new_page()

    return new_page
