"""The house: who may import whom, how long a module is, what a docstring says.

The last part builds houses with a fault in each, and shows that the check for it fails.
"""

import ast
import functools
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import lowrank_utils

PACKAGE = Path(lowrank_utils.__file__).parent
LONGEST = 240  # one concept a module: about 200 lines with docstrings, never squeezed to fit
ROOMS = (  # each may import from those above it, and from itself
    "_checks",
    "factors",
    "layers",
    "cost",
    "model",
    "search",
    "network",
    "lab",
    "explorers",
    "exercises",
    "command",
    "__main__",
)
LEAF = "plotting"  # may import all of them, and nobody but the exercises imports it
DESIGN = set(
    "set_seed load_split Split Net NetLite train_nn accuracy auc truncated_svd low_rank_approximation "
    "relative_error break_even_rank rank_for_energy find_rank RankSearch OptimizeRank LowRankLinear compress "
    "count_params count_macs size_bytes measure_latency flopth_counts cost_table".split()
)


@functools.cache
def sources(root: Path) -> dict[str, tuple[Path, ast.Module]]:
    """{"svd": ..., "exercises.chapter1": ...}; __init__ of the package itself is ""."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path, ast.parse(path.read_text())
    return found


def imported(name: str, path: Path, tree: ast.Module, package: str) -> Iterator[str]:
    """Absolute names of everything that is imported, at any depth of the code."""
    here = [package, *name.split(".")] if name else [package]
    folder = here if path.name == "__init__.py" else here[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(folder[: len(folder) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def inner(name: str, package: str, modules: set[str]) -> str | None:
    """Module of the package that an import reaches: "lowrank_utils.factors.svd.thin_svd" -> "factors.svd"."""
    head, *rest = name.split(".")
    if head != package:
        return None
    return next((part for i in range(len(rest), 0, -1) if (part := ".".join(rest[:i])) in modules), "")


def edges(root: Path) -> dict[str, set[str]]:
    """{module: modules of the package that it imports}."""
    found = sources(root)
    graph: dict[str, set[str]] = {}
    for name, (path, tree) in found.items():
        targets = {inner(target, root.name, set(found)) for target in imported(name, path, tree, root.name)}
        graph[name] = {t for t in targets if t is not None and t != name}
    return graph


def room(module: str) -> str:
    return module.split(".")[0]


def trespasses(root: Path) -> list[str]:
    """Imports that the order of the rooms forbids."""
    wrong = []
    for me, targets in sorted(edges(root).items()):
        if me == "":
            wrong += ["__init__ imports plotting"] * (LEAF in targets)
            continue
        mine = room(me)
        if mine not in ROOMS and mine != LEAF:
            wrong.append(f"{me} has no room")
            continue
        for target in sorted(targets):
            theirs = room(target)
            if target == "":
                wrong.append(f"{me} imports the package itself")
            elif theirs == LEAF:
                wrong += [f"{me} imports {LEAF}"] * (mine not in ("exercises", LEAF))
            elif mine != LEAF and (theirs not in ROOMS or ROOMS.index(theirs) > ROOMS.index(mine)):
                wrong.append(f"{me} imports {target} of a higher room")
    return wrong


def circle(root: Path) -> list[str]:
    """One circle of imports, or nothing. __init__ may import all, and so is left out."""
    graph = {me: targets - {""} for me, targets in edges(root).items() if me}

    def walk(me: str, way: list[str]) -> list[str]:
        if me in way:
            return [*way[way.index(me) :], me]
        return next(filter(None, (walk(target, [*way, me]) for target in sorted(graph.get(me, ())))), [])

    return next(filter(None, (walk(me, []) for me in sorted(graph))), [])


def painters(root: Path) -> list[str]:
    """Modules that import matplotlib."""
    found = sources(root).items()
    return [
        n for n, (p, t) in found if any(i.split(".")[0] == "matplotlib" for i in imported(n, p, t, root.name))
    ]


def too_long(root: Path) -> list[str]:
    lengths = {name: len(path.read_text().splitlines()) for name, (path, _) in sources(root).items()}
    return [f"{name} has {lines} lines" for name, lines in lengths.items() if lines > LONGEST]


def asserts(root: Path) -> list[str]:
    found = sources(root).items()
    return [
        f"{n}:{node.lineno}" for n, (_, t) in found for node in ast.walk(t) if isinstance(node, ast.Assert)
    ]


def mute_errors(root: Path) -> list[str]:
    """ValueErrors and TypeErrors whose message shows no value and no limit."""
    wrong = []
    for name, (_, tree) in sources(root).items():
        for node in ast.walk(tree):
            call = node.exc if isinstance(node, ast.Raise) else None
            if isinstance(call, ast.Name) and call.id in ("ValueError", "TypeError"):
                wrong.append(f"{name}:{node.lineno}")
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                parts = [n for arg in call.args for n in ast.walk(arg)]
                told = any(isinstance(n, ast.FormattedValue) for n in parts) or " must " in ast.unparse(call)
                if call.func.id in ("ValueError", "TypeError") and not told:
                    wrong.append(f"{name}:{node.lineno}")
    return wrong


def test_every_room_imports_downwards_only():
    assert trespasses(PACKAGE) == []


def test_no_circle():
    assert circle(PACKAGE) == []


def test_the_graph_is_not_empty():
    graph = edges(PACKAGE)
    assert {"search.nested", "factors.ranks", "model.metrics"} <= graph["search.find_rank"]
    assert "_checks" in graph["factors.svd"]
    assert {"network.compress", "search.find_rank", "factors.svd"} <= graph[""]
    assert {room(module) for module in graph} == {"", LEAF, *ROOMS}


def test_plotting_alone_imports_matplotlib():
    assert {room(module) for module in painters(PACKAGE)} == {"plotting"}


def test_no_module_is_too_long():
    assert too_long(PACKAGE) == []


def test_assert_is_no_validation():
    assert asserts(PACKAGE) == []


def test_every_error_shows_a_value():
    assert mute_errors(PACKAGE) == []


def test_importing_the_package_does_not_import_what_it_does_not_need():
    heavy = [
        "matplotlib",
        "sklearn",
        "scipy.stats",
        "scipy.optimize",
        "pandas",
        "sympy",
        "flopth",
        "torchvision",
        "tensorly",
        "mlxtend",
    ]
    code = f"import sys, lowrank_utils; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert (ran.stdout, ran.returncode) == ("[]\n", 0), ran.stderr


def test_all_is_sorted_and_complete():
    names = lowrank_utils.__all__
    assert names == sorted(names) and len(set(names)) == len(names)
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    taken = [a.asname or a.name for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names]
    assert sorted(taken) == names
    assert set(names) >= DESIGN
    assert all(hasattr(lowrank_utils, name) for name in names)


def test_typed():
    assert (PACKAGE / "py.typed").is_file()


def public_callables() -> Iterator[tuple[str, object]]:
    """Public functions and layers, and their public methods; results such as RankSearch take no arguments."""
    for name in lowrank_utils.__all__:
        thing = getattr(lowrank_utils, name)
        if hasattr(thing, "__dataclass_fields__"):
            continue
        yield name, thing
        if inspect.isclass(thing):
            for method, function in vars(thing).items():
                raw = getattr(function, "__func__", function)
                if not method.startswith("_") and inspect.isfunction(raw):
                    yield f"{name}.{method}", raw


PUBLIC = dict(public_callables())


def parameters(thing: object) -> list[str]:
    function = thing.__init__ if inspect.isclass(thing) else thing
    if inspect.isclass(thing) and "__init__" not in vars(thing):
        return []
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def undocumented(name: str, thing: object) -> list[str]:
    """What is missing in a docstring: Args with each parameter, Raises, Example."""
    doc, missing = inspect.getdoc(thing) or "", []
    if not doc.split("\n")[0].rstrip().endswith((".", ":")):
        missing.append("a first line that ends with a full stop")
    if name.endswith(".forward"):  # its shapes are the layer's
        return missing
    section = re.search(r"^Args:\n((?:    .*\n|\n)+)", doc + "\n", re.M)
    told = section.group(1) if section else ""
    missing += [p for p in parameters(thing) if not re.search(rf"^    \*{{0,2}}{p}:", told, re.M)]
    if "." not in name and ">>> " not in doc:
        missing.append("Example")
    own = thing.__init__ if inspect.isclass(thing) and "__init__" in vars(thing) else thing
    source = ast.parse(textwrap.dedent(inspect.getsource(own)))
    calls = [ast.unparse(n.func) for n in ast.walk(source) if isinstance(n, ast.Call)]
    raises = any(isinstance(n, ast.Raise) for n in ast.walk(source)) or any(
        c.startswith("_checks.") for c in calls
    )
    if raises and "." not in name and not re.search(r"^Raises:\n    (Type|Value)Error: ", doc, re.M):
        missing.append("Raises")
    return missing


@pytest.mark.parametrize("name", PUBLIC)
def test_docstrings(name):
    assert undocumented(name, PUBLIC[name]) == []


@pytest.mark.parametrize("name", [n for n in lowrank_utils.__all__ if n not in PUBLIC])
def test_results_have_a_docstring(name):
    doc = inspect.getdoc(getattr(lowrank_utils, name))
    assert doc and not doc.startswith(f"{name}(")  # not the one that dataclass makes up


# each of these checks can fail


def tree_with(folder: Path, **modules: str) -> Path:
    root = folder / "fake"
    sound = {
        "__init__": "from fake.search.find import find\n",
        "_checks": "import math\n",
        "plotting": "import matplotlib.pyplot\nfrom fake.search.find import find\n",
        "factors/__init__": "",
        "factors/svd": "from fake import _checks\n",
        "factors/ranks": "import fake.factors.svd\n",
        "search/__init__": "",
        "search/find": "from fake.factors.ranks import rank\nfrom ..factors.svd import thin\n",
        "lab/__init__": "",
        "lab/nets": "from fake import _checks\n",
        "exercises/__init__": "import importlib\n",
        "exercises/one": "from fake.lab.nets import Net\nfrom ..search.find import f\nfrom . import two\n",
        "exercises/two": "",
    }
    for name, text in (sound | {n.replace("9", "/"): t for n, t in modules.items()}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.py").write_text(text)
    return root


def test_a_sound_house_passes(tmp_path):
    root = tree_with(tmp_path)
    assert trespasses(root) == circle(root) == too_long(root) == asserts(root) == mute_errors(root) == []
    assert painters(root) == ["plotting"]
    assert edges(root)["search.find"] == {"factors.ranks", "factors.svd"}
    assert edges(root)["exercises.one"] == {"exercises.two", "lab.nets", "search.find"}


SVD, NETS = "factors9svd", "lab9nets"


@pytest.mark.parametrize(
    ("modules", "complaint"),
    [
        ({SVD: "from fake.search.find import x"}, "factors.svd imports search.find of a higher room"),
        ({SVD: "from fake.search import find"}, "factors.svd imports search.find of a higher room"),
        ({SVD: "import fake.search.find as s"}, "factors.svd imports search.find of a higher room"),
        ({SVD: "from ..search.find import x"}, "factors.svd imports search.find of a higher room"),
        ({SVD: "from ..search import x"}, "factors.svd imports search of a higher room"),
        ({SVD: "def f():\n    import fake.search.find"}, "factors.svd imports search.find of a higher room"),
        ({SVD: "from fake import find"}, "factors.svd imports the package itself"),
        ({SVD: "import fake"}, "factors.svd imports the package itself"),
        ({"search9find": "from fake.lab.nets import Net"}, "search.find imports lab.nets of a higher room"),
        ({NETS: "from fake.plotting import use_style"}, "lab.nets imports plotting"),
        (
            {"factors9ranks": "from fake.exercises import x"},
            "factors.ranks imports exercises of a higher room",
        ),
        ({"utils": "import math"}, "utils has no room"),
        ({"__init__": "from fake.plotting import band"}, "__init__ imports plotting"),
        ({"_checks": "from fake.factors.svd import x"}, "_checks imports factors.svd of a higher room"),
    ],
)
def test_a_trespass_is_seen(tmp_path, modules, complaint):
    assert trespasses(tree_with(tmp_path, **modules)) == [complaint]


def test_a_circle_is_seen(tmp_path):
    root = tree_with(tmp_path, factors9svd="from fake.factors.ranks import rank")
    assert circle(root) == ["factors.ranks", "factors.svd", "factors.ranks"]


def test_a_painter_a_long_module_an_assert_and_a_mute_error_are_seen(tmp_path):
    root = tree_with(
        tmp_path,
        factors9svd="def f():\n    import matplotlib.pyplot as plt\n",
        exercises9two="from matplotlib import pyplot\n",
        factors9ranks="x = 1\n" * 241,
        lab9nets="def f(x):\n    assert x > 0\n",
        search9find="def f(x):\n    raise ValueError('wrong')\n",
    )
    assert painters(root) == ["exercises.two", "factors.svd", "plotting"]
    assert too_long(root) == ["factors.ranks has 241 lines"]
    assert asserts(root) == ["lab.nets:2"]
    assert mute_errors(root) == ["search.find:2"]


def test_a_poor_docstring_is_seen():
    assert undocumented("poor", poor) == ["a first line that ends with a full stop", "b", "Example", "Raises"]


def poor(a, b):
    """Do something

    Args:
        a: A number.
    """
    if a > b:
        raise ValueError(f"a={a} must be at most b={b}")
