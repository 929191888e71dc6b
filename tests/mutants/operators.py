"""Small changes of a module's source, each of which a test should notice.

A mutant changes one node of the syntax tree: a comparison or its boundary, an operator, the order of operands
or arguments, a constant, a default, a condition, what is returned; or it leaves out a statement, a keyword, a
decorator or a context. Annotations, docstrings, words of errors and imports are left alone.
"""

from __future__ import annotations

import ast
import copy
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.MatMult)
COMMUTING = ("min", "max", "equal", "hypot", "transpose")
KEPT = {"property", "cached_property", "classmethod", "staticmethod", "contextmanager", "dataclass"}


@dataclass(frozen=True)
class Mutant:
    """One change: of which module, where, from what to what."""

    module: str  # "factors/svd.py"
    line: str  # the source line on which the changed statement begins, without its comment
    was: str
    now: str
    number: int  # of that line
    last: int  # of the statement's head
    index: int  # of the node in ast.walk
    replacement: ast.AST
    nth: int  # of those with the same line, was and now in this module
    at_import: bool  # runs when the module is imported: a default, a decorator, a constant of the module

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What does not change when other lines do."""
        return self.module, self.line, self.was, self.now, self.nth

    def place(self, seed: int) -> int:
        """In a drawn order that depends on nothing but the change itself and the seed."""
        return zlib.crc32(repr((seed, self.key[:4])).encode())

    def tree(self, source: str) -> ast.Module:
        """The changed module, every line where it was."""
        tree = ast.parse(source)
        target = list(ast.walk(tree))[self.index]

        class Change(ast.NodeTransformer):
            def visit(self, node: ast.AST) -> ast.AST:
                return replaced if node is target else self.generic_visit(node)

        replaced = ast.copy_location(copy.deepcopy(self.replacement), target)
        return ast.fix_missing_locations(Change().visit(tree))


def mutants(module: str, source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    tree = ast.parse(source)
    lines = source.splitlines()
    index = {id(node): i for i, node in enumerate(ast.walk(tree))}
    found = []
    for node, head, at_import in _places(tree, tree, True):
        number, last = _lines(head)
        line = lines[number - 1].partition("  #")[0].strip()
        for changed in _changes(node, tree, at_import):
            found.append(
                (number, last, line, _words(node), _words(changed), index[id(node)], changed, at_import)
            )
    seen: Counter[tuple[str, str, str]] = Counter()
    result = []
    for number, last, line, was, now, node_index, changed, at_import in sorted(found, key=lambda one: one[0]):
        if was != now:
            nth = seen[line, was, now]
            seen[line, was, now] += 1
            result.append(Mutant(module, line, was, now, number, last, node_index, changed, nth, at_import))
    return result


def _lines(head: ast.stmt) -> tuple[int, int]:
    body = getattr(head, "body", None)  # of a block its head alone
    last = body[0].lineno - 1 if body else head.end_lineno or head.lineno
    return head.lineno, max(last, head.lineno)


def _words(node: ast.AST) -> str:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return f"{' '.join('@' + ast.unparse(d) for d in node.decorator_list)} {node.name}".strip()
    if isinstance(node, ast.With | ast.If):
        return ast.unparse(node).partition("\n")[0]
    return " ".join(ast.unparse(node).split())


def _places(node: ast.AST, head: ast.AST, at_import: bool) -> Iterator[tuple[ast.AST, ast.AST, bool]]:
    """Each node that may change, the statement in whose head it stands, and whether an import runs it."""
    if isinstance(node, ast.stmt):
        head = node
        yield node, head, at_import or isinstance(node, ast.FunctionDef)
    elif not isinstance(node, ast.Module):
        yield node, head, at_import
    for field, value in ast.iter_fields(node):
        inside = at_import and not (isinstance(node, ast.FunctionDef) and field == "body")
        if field in ("annotation", "returns", "type_params", "names"):
            continue
        if isinstance(node, ast.keyword) and node.arg == "strict":
            continue
        inside = inside or (isinstance(node, ast.FunctionDef) and field in ("args", "decorator_list"))
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_words(child):
                yield from _places(child, head, inside)


def _is_words(node: ast.AST) -> bool:
    """A docstring, a raised error's words, a guard for types alone."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return True
    return isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom)


def _changes(node: ast.AST, tree: ast.Module, at_import: bool) -> Iterator[ast.AST]:
    """What a node may become."""

    def but(**fields: object) -> ast.AST:
        changed = copy.copy(node)
        for name, value in fields.items():
            setattr(changed, name, value)
        return changed

    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for other in COMPARISONS[type(op)]:
                yield but(ops=[*node.ops[:i], other(), *node.ops[i + 1 :]])
    elif isinstance(node, ast.BinOp | ast.AugAssign):
        a_type = at_import and isinstance(node.op, ast.BitOr)  # int | None, which mypy alone reads
        if type(node.op) in ARITHMETIC and not a_type:
            yield but(op=ARITHMETIC[type(node.op)]())
        if isinstance(node, ast.BinOp) and isinstance(node.op, ORDERED):
            yield but(left=node.right, right=node.left)
    elif isinstance(node, ast.BoolOp):
        yield but(op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Invert):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from (ast.Constant(value) for value in _other_constants(node.value))
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        if not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp):
            yield but(test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Call):
        yield from _other_calls(node, but)
    elif isinstance(node, ast.Return):
        if node.value is not None and ast.unparse(node.value) != "None":
            yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.With):
        if all(item.optional_vars is None for item in node.items):
            yield ast.If(ast.Constant(True), node.body, [])
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        for d in node.decorator_list:
            if not any(word in ast.unparse(d) for word in KEPT):
                yield but(decorator_list=[other for other in node.decorator_list if other is not d])
    if _may_go(node, tree):
        yield ast.Pass()


def _other_constants(value: object) -> list[object]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, float):
        if 0 < value <= 1e-2:
            return [value * 100, value / 100]  # a threshold
        return [value + 1, value * 1.1] if value else [1.0]
    return []


def _other_calls(node: ast.Call, but: Callable[..., ast.AST]) -> Iterator[ast.AST]:
    if ast.unparse(node.func).startswith(("_checks.", "isinstance", "getattr")):
        return
    commute = ast.unparse(node.func).split(".")[-1] in COMMUTING
    for i in range(0 if not commute else len(node.args), len(node.args) - 1):
        first, second = node.args[i : i + 2]
        alike = isinstance(first, ast.Constant) == isinstance(second, ast.Constant)
        if alike and not isinstance(first, ast.Starred) and not isinstance(second, ast.Starred):
            yield but(args=[*node.args[:i], second, first, *node.args[i + 2 :]])
    for keyword in node.keywords:
        if keyword.arg not in (None, "strict"):
            yield but(keywords=[other for other in node.keywords if other is not keyword])


def _may_go(node: ast.AST, tree: ast.Module) -> bool:
    """A statement without which the rest still has its names."""
    if isinstance(node, ast.Raise | ast.AugAssign | ast.Delete | ast.Continue | ast.Break):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    if not isinstance(node, ast.Assign) or len(node.targets) != 1:
        return False
    target = node.targets[0]
    if isinstance(target, ast.Attribute | ast.Subscript):
        return True
    functions = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and node in ast.walk(f)]
    if not isinstance(target, ast.Name) or not functions:
        return False
    inner = functions[-1]  # ast.walk goes outside in
    names = [arg.arg for arg in ast.walk(inner.args) if isinstance(arg, ast.arg)]
    names += [n.id for n in ast.walk(inner) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return names.count(target.id) > 1
