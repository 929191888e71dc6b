"""Tests against mutants, each in a fork of a pytest session that has collected the tests already."""

from __future__ import annotations

import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from types import CodeType, FunctionType

import coverage
import pytest
from operators import Mutant

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lowrank_utils"
SLOWEST = 5.0  # seconds; what takes longer starts processes of its own, which run the module as it is
MEMORY = 24 * 2**30  # bytes of addresses: a mutant may ask for any number of zeros
OPTIONS = ["-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:xdist", f"--rootdir={ROOT}"]


@dataclass
class Reach:
    """The seconds of every test, and the lines of each module that it runs."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # module -> test -> lines
    loaded: list[str] = field(default_factory=list)  # other packages' modules that the tests import
    failed: list[str] = field(default_factory=list)

    def tests(self, mutant: Mutant, enough: float) -> list[str]:
        """Those that reach its line, the module's own first, then the quick ones; so many seconds of them."""
        module = Path(mutant.module)
        head = range(mutant.number, mutant.last + 1)
        reached = self.lines.get(mutant.module, {})
        found = [t for t, lines in reached.items() if mutant.at_import or any(n in head for n in lines)]
        own = (f"tests/{module.parent}/test_{module.stem}", f"lowrank_utils/{module}")
        found.sort(key=lambda test: (not test.startswith(own), self.seconds[test]))
        total = accumulate(self.seconds[test] for test in found)
        return [test for test, seconds in zip(found, total, strict=True) if seconds <= enough]


class Recorder:
    """Coverage under the name of each test, and of each fixture that several tests share."""

    def __init__(self, room: str) -> None:
        self.room = room
        self.coverage = coverage.Coverage(data_file=None, source=[str(PACKAGE / room)], config_file=False)
        self.fixtures: dict[str, list[str]] = {}
        self.reach = Reach()
        self.now = ""

    def record(self, session: pytest.Session) -> dict[str, object]:
        """Run every test of a session."""
        config = session.config
        config.pluginmanager.register(self)
        self.coverage.start()
        for i, item in enumerate(session.items):
            self.now = item.nodeid
            shared = getattr(item, "_fixtureinfo", None)
            names = shared.name2fixturedefs if shared else {}
            self.fixtures[self.now] = [_name(d) for ds in names.values() for d in ds]
            self.coverage.switch_context(self.now)
            start = time.perf_counter()
            config.hook.pytest_runtest_protocol(
                item=item, nextitem=session.items[i + 1] if i + 1 < len(session.items) else None
            )
            took = time.perf_counter() - start
            if took <= SLOWEST:
                self.reach.seconds[self.now] = took
        self.coverage.stop()
        self._read()
        return vars(self.reach)

    def _read(self) -> None:
        data = self.coverage.get_data()
        for path in sorted((PACKAGE / self.room).glob("*.py")):
            by_context: dict[str, set[int]] = defaultdict(set)
            for line, contexts in data.contexts_by_lineno(str(path)).items():
                for context in contexts:
                    by_context[context].add(line)
            of_tests = {
                test: by_context[test].union(*(by_context[shared] for shared in self.fixtures[test]))
                for test in self.reach.seconds
            }
            self.reach.lines[f"{self.room}/{path.name}"] = {t: sorted(n) for t, n in of_tests.items() if n}
        places = {name: str(getattr(module, "__file__", "")) for name, module in list(sys.modules.items())}
        self.reach.loaded = [name for name, place in places.items() if "site-packages" in place]

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
        if fixturedef.scope != "function":
            self.coverage.switch_context(_name(fixturedef))
        result = yield
        self.coverage.switch_context(self.now)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reach.failed += [report.nodeid] * report.failed


def _name(fixture: pytest.FixtureDef[object]) -> str:
    return f"fixture {fixture.baseid} {fixture.argname}"


class FirstFailure:
    """Runs these tests until one fails, and keeps its name."""

    def __init__(self) -> None:
        self.failed = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed = self.failed or (report.nodeid if report.failed else "")

    def run(self, session: pytest.Session, tests: list[str]) -> str:
        """The test that fails first, or nothing."""
        by_name = {item.nodeid: item for item in session.items}
        items = [by_name[test] for test in tests]
        session.config.pluginmanager.register(self)
        for item, following in zip(items, [*items[1:], None], strict=True):
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed:
                break
        return self.failed


def in_a_fork(run: Callable[[], object], limit: float) -> object:
    """What ``run`` returns in a process of its own; "timeout" after so many seconds, "died" if it ended."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        answer = b""
        try:
            os.setsid()
            os.close(out)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2) if "MUTANTS_LOUD" not in os.environ else (0,):
                os.dup2(null, stream)
            answer = json.dumps({"answer": run()}).encode()
        except BaseException as error:
            answer = json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()
        finally:
            while answer:
                answer = answer[os.write(into, answer) :]
            os._exit(0)
    os.close(into)
    ended = []
    signal.signal(signal.SIGALRM, lambda *_: (ended.append(child), os.killpg(child, signal.SIGKILL)))
    signal.setitimer(signal.ITIMER_REAL, limit)
    with open(out, "rb") as pipe:
        answer = pipe.read()
    signal.setitimer(signal.ITIMER_REAL, 0)
    os.waitpid(child, 0)
    if not answer:
        return "timeout" if ended else "died"
    told = json.loads(answer)
    if "error" in told:  # ours, not the mutant's
        raise RuntimeError(told["error"])
    return told["answer"]


class Changed(importlib.abc.MetaPathFinder):
    """Gives the import system a module whose source was changed."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self.name, self.path, self.code = name, path, code

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        if name != self.name:
            return None
        code = self.code

        class Loader(importlib.machinery.SourceFileLoader):
            def get_code(self, fullname: str) -> CodeType:
                return code

        return importlib.util.spec_from_file_location(name, self.path, loader=Loader(name, str(self.path)))


class Judge:
    """A pytest plugin that, in the place of running the tests, hands them to ``work``."""

    def __init__(self, room: str, modules: list[str], work: Callable[[Judge], None]) -> None:
        self.room, self.work = room, work
        self.paths = [f"tests/{room}", f"lowrank_utils/{room}", "tests/test_properties.py"]
        self.paths += ELSEWHERE.get(room, ())
        if modules:
            files = [path for name in modules for path in (ROOT / "tests" / room).glob(f"test_{name}*.py")]
            self.paths = [*map(str, sorted(files)), *(f"lowrank_utils/{room}/{name}.py" for name in modules)]
        self.functions: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)

    def start(self) -> None:
        """Collect, and work."""
        pytest.main([*OPTIONS, *self.paths], plugins=[self])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.session = session
        kept = Path(os.environ.get("MUTANTS_REACH", os.devnull))
        if kept.is_file():  # of a run before
            answer: object = json.loads(kept.read_text(encoding="utf-8"))
        else:
            answer = in_a_fork(lambda: Recorder(self.room).record(session), 3600)
        if not isinstance(answer, dict) or answer["failed"]:
            told = answer["failed"] if isinstance(answer, dict) else answer
            raise SystemExit(f"without any mutant the tests of {self.room} fail: {told}")
        if not kept.exists():
            kept.write_text(json.dumps(answer), encoding="utf-8")
        self.reach = Reach(**answer)
        for name in self.reach.loaded:
            try:
                importlib.import_module(name)
            except Exception:  # a part that only its package can import
                continue
        for thing in gc.get_objects():
            if type(thing) is FunctionType and thing.__code__.co_filename.startswith(str(PACKAGE)):
                code = thing.__code__
                self.functions[code.co_filename, code.co_qualname, code.co_firstlineno].append(thing)
        gc.collect()
        gc.freeze()
        self.work(self)
        return True

    def killer(self, mutant: Mutant, tests: list[str]) -> str:
        """The test that kills it, "timeout" or an error; "" where it survives."""
        path = PACKAGE / mutant.module
        limit = 30 + 5 * sum(self.reach.seconds[test] for test in tests)

        def run() -> str:
            code = compile(mutant.tree(path.read_text(encoding="utf-8")), str(path), "exec")
            if not mutant.at_import and self._put(code):
                return FirstFailure().run(self.session, tests)
            return _from_the_import(mutant, path, code, tests)

        return str(in_a_fork(run, limit))

    def _put(self, module: CodeType) -> bool:
        """Give the functions that live the changed code; False where one can't have it."""
        codes = list(_inner(module))
        for new in codes:
            key = new.co_filename, new.co_qualname, new.co_firstlineno
            alike = [c for c in codes if (c.co_qualname, c.co_firstlineno) == key[1:]]
            for function in self.functions[key] if len(alike) == 1 else []:
                if function.__code__.co_freevars != new.co_freevars:
                    return False
                function.__code__ = new
        return True


def _inner(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _inner(constant)


def _from_the_import(mutant: Mutant, path: Path, code: CodeType, tests: list[str]) -> str:
    """The same from the package's import on: a default, a decorator, a constant of the module."""
    for name in list(sys.modules):
        place = str(getattr(sys.modules[name], "__file__", ""))
        ours = place.startswith((f"{PACKAGE}/", f"{ROOT}/tests/"))
        if ours and Path(place).parent != Path(__file__).parent:
            del sys.modules[name]
    name = "lowrank_utils." + mutant.module.removesuffix(".py").replace("/", ".")
    sys.meta_path.insert(0, Changed(name, path, code))
    try:
        importlib.import_module(name)
    except Exception as error:
        return f"import: {type(error).__name__}"
    failure = FirstFailure()

    class Chosen:
        @pytest.hookimpl(tryfirst=True)
        def pytest_runtestloop(self, session: pytest.Session) -> bool:
            present = {item.nodeid for item in session.items}
            found = [test for test in tests if test in present]
            failure.run(session, found)
            failure.failed = failure.failed or ("" if found else "nothing was collected")
            return True

    files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
    ended = pytest.main([*OPTIONS, *files], plugins=[Chosen()])
    return failure.failed or (f"pytest ended with {int(ended)}" if ended else "")


ELSEWHERE = {  # files of another room that test a room's modules
    "factors": ["tests/network/test_calibrate.py"],
    "search": ["tests/network/test_harm.py"],
}
