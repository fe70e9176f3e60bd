"""Conditions on the fields of records, as people write them: ``defocus_u_ang < 30000 and exists(motion)``.

A condition is parsed to a tree in which only these are allowed: ``and``, ``or``, ``not``, comparisons (also ``2 < x < 3``, and
``in`` a list or a text), ``+ - * / % //``, ``**`` with a small constant exponent, parentheses, numbers, texts, ``True``,
``False``, ``None``, the names of fields (``motion.total_px`` for a field of a record inside), and `FUNCTIONS`. It is read node by
node and never run as Python: it can reach nothing but the declared fields. Length, depth and numbers are bounded, so it always
ends soon.
"""

import ast
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from icestream.errors import WorkflowError
from icestream.records import Record

LONGEST_TEXT = 1000
DEEPEST = 25
LARGEST_EXPONENT = 8
LARGEST_NUMBER = 1e15
FUNCTIONS = MappingProxyType({"abs": (1, 1), "min": (2, 20), "max": (2, 20), "round": (1, 2), "len": (1, 1), "exists": (1, 1)})
"""Function → the fewest and the most arguments it takes."""

_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Mod, ast.FloorDiv, ast.Pow)
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq, ast.In, ast.NotIn)
_ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


@dataclass(frozen=True)
class Condition:
    """A condition that was read; `icestream.flow.workflow.expression_values` applies it."""

    text: str
    tree: ast.expr


@lru_cache(maxsize=64)
def parse_condition(text: str) -> Condition:
    """Read a condition.

    Raises
    ------
    WorkflowError
        It cannot be read, or holds something that is not allowed; saying what and where.
    """
    if len(text) > LONGEST_TEXT:
        raise WorkflowError(f"the condition has {len(text)} characters; at most {LONGEST_TEXT} are allowed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd but harmless spellings, as `1or 2`
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise WorkflowError(f"the condition {_shown(text)} cannot be read: {getattr(error, 'msg', None) or error}") from error
    _check_node(tree, text, depth=0)
    return Condition(text.strip(), tree)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def _check_node(node: ast.AST, text: str, *, depth: int) -> None:
    if depth > DEEPEST:
        raise WorkflowError(f"the condition {_shown(text)} is nested deeper than {DEEPEST}")
    for child in _check_form(node, text):
        _check_node(child, text, depth=depth + 1)


def _check_form(node: ast.AST, text: str) -> list[ast.expr]:
    """Check one node and return those inside it that are to be checked."""
    match node:
        case ast.BoolOp():
            return node.values
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd()):
            return [node.operand]
        case ast.BinOp(op=ast.Pow()) if not _is_small_exponent(node.right):
            raise _refusal(node, text, f"an exponent must be a number from -{LARGEST_EXPONENT} to {LARGEST_EXPONENT}")
        case ast.BinOp() if isinstance(node.op, _ARITHMETIC):
            return [node.left, node.right]
        case ast.Compare() if all(isinstance(op, _COMPARISONS) for op in node.ops):
            return [
                part
                for operand in (node.left, *node.comparators)
                for part in (operand.elts if isinstance(operand, ast.Tuple | ast.List) else [operand])
            ]
        case ast.Call():
            return _check_call(node, text)
        case ast.Attribute() | ast.Name():
            if path_of(node) is None:
                raise _refusal(node, text, "only fields of records have a dot")
        case ast.Constant(value=int() | float() as number) if not abs(number) <= LARGEST_NUMBER:
            raise _refusal(node, text, f"a number must be at most {LARGEST_NUMBER:g}")
        case ast.Constant(value=int() | float() | str() | None):  # a bool is an int
            pass
        case _:
            raise _refusal(node, text, f"{type(node).__name__} is not allowed")
    return []


def _check_call(node: ast.Call, text: str) -> list[ast.expr]:
    name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
    if name not in FUNCTIONS:
        raise _refusal(node, text, f"no function is called {name!r}; there are {', '.join(FUNCTIONS)}")
    fewest, most = FUNCTIONS[name]
    if node.keywords or not fewest <= len(node.args) <= most:
        raise _refusal(node, text, f"{name} takes {fewest} to {most} values" if fewest < most else f"{name} takes one value")
    return node.args


def _is_small_exponent(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    value = node.value if isinstance(node, ast.Constant) else None
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_EXPONENT


def _refusal(node: ast.AST, text: str, reason: str) -> WorkflowError:
    found = ast.get_source_segment(text.strip(), node) or type(node).__name__
    return WorkflowError(f"the condition {_shown(text)}: {_shown(found)}: {reason}")


def path_of(node: ast.expr) -> tuple[str, ...] | None:
    """Return the names of a dotted field, or None if ``node`` is something else."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        above = path_of(node.value)
        return None if above is None else (*above, node.attr)
    return None


# Types -------------------------------------------------------------------------------------------------------------------------

Scope = Mapping[str, type[Record]]
"""Prefix → record; the fields of prefix ``""`` are named without one."""


def check_condition(condition: Condition, scope: Scope) -> None:
    """Check that a condition names fields that there are, and compares what can be compared.

    Raises
    ------
    WorkflowError
        Naming the field or part, and what was allowed.
    """
    kind = _kind_of(condition.tree, condition.text, scope)
    if kind not in ("condition", "anything"):
        raise WorkflowError(f"the condition {_shown(condition.text)} is a {kind}, not a condition; compare it with something")


def _kind_of(node: ast.expr, text: str, scope: Scope) -> str:
    """Return number, text, condition, list, record, unset or anything (which is only known when it is applied)."""
    kind = "number"
    match node:
        case ast.BoolOp():
            for value in node.values:
                _want(value, "condition", text, scope)
            kind = "condition"
        case ast.UnaryOp():
            kind = "condition" if isinstance(node.op, ast.Not) else "number"
            _want(node.operand, kind, text, scope)
        case ast.BinOp():
            _want(node.left, "number", text, scope)
            _want(node.right, "number", text, scope)
        case ast.Compare():
            kind = _kind_of_comparison(node, text, scope)
        case ast.Call(func=ast.Name(id=name)):
            kind = _kind_of_call(node, name, text, scope)
        case ast.Constant(value=value):
            kind = {bool: "condition", str: "text", type(None): "unset"}.get(type(value), "number")
        case _:
            kind = _kind_of_field(node, text, scope)
    return kind


def _want(node: ast.expr, wanted: str, text: str, scope: Scope) -> None:
    kind = _kind_of(node, text, scope)
    if kind not in (wanted, "anything"):
        raise _refusal(node, text, f"is a {kind}; a {wanted} is expected here")


def _kind_of_comparison(node: ast.Compare, text: str, scope: Scope) -> str:
    operands = [node.left, *node.comparators]
    for left, operator, right in zip(operands, node.ops, operands[1:], strict=False):
        first = _kind_of(left, text, scope) if not isinstance(left, ast.Tuple | ast.List) else "list"
        if isinstance(right, ast.Tuple | ast.List):
            second = "list"
            for element in right.elts:
                _want(element, first, text, scope)
        else:
            second = _kind_of(right, text, scope)
        if isinstance(operator, ast.In | ast.NotIn):
            fits = second in ("list", "anything") or (first, second) == ("text", "text")
        elif isinstance(operator, _ORDERED):
            fits = {first, second} <= {"number", "anything"} or {first, second} <= {"text", "anything"}
        else:
            literal = isinstance(left, ast.Tuple | ast.List) or isinstance(right, ast.Tuple | ast.List)
            fits = not literal and (first == second or bool({first, second} & {"anything", "unset"}))
        if not fits:
            raise _refusal(node, text, f"a {first} cannot be compared with a {second} in this way")
    return "condition"


def _kind_of_call(node: ast.Call, name: str, text: str, scope: Scope) -> str:
    if name == "exists":
        if path_of(node.args[0]) is None:
            raise _refusal(node, text, "exists takes a field")
        _kind_of(node.args[0], text, scope)
        return "condition"
    if name == "len":
        kind = _kind_of(node.args[0], text, scope)
        if kind not in ("text", "list", "anything"):
            raise _refusal(node, text, f"a {kind} has no length")
        return "number"
    for argument in node.args:
        _want(argument, "number", text, scope)
    return "number"


def split_path(path: tuple[str, ...], scope: Mapping[str, object]) -> tuple[str, tuple[str, ...]]:
    """Return the prefix that a dotted field belongs to, and its names within that record."""
    return (path[0], path[1:]) if path[0] in scope and len(path) > 1 else ("", path)


def _kind_of_field(node: ast.expr, text: str, scope: Scope) -> str:
    prefix, names = split_path(path_of(node) or (), scope)
    hint: Any = scope[prefix]
    for name in names:
        if not (isinstance(hint, type) and issubclass(hint, Record)):
            raise _refusal(node, text, f"{name!r}: what is before it has no fields")
        fields = {own: field for own, field in hint.model_fields.items() if own != "block"}
        if name not in fields:
            others = [f"{other}.…" for other in scope if other]
            raise _refusal(node, text, f"{hint.__name__} has no field {name!r}; it has {', '.join([*fields, *others]) or 'none'}")
        hint = _without_none(fields[name].annotation)
    return _kind_of_hint(hint)


def _without_none(hint: Any) -> Any:
    if get_origin(hint) is Annotated:
        return _without_none(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        rest = [member for member in get_args(hint) if member is not type(None)]
        return _without_none(rest[0]) if len(rest) == 1 else Any
    return hint


def _kind_of_hint(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "text" if all(isinstance(value, str) for value in get_args(hint)) else "anything"
    if get_origin(hint) in (list, tuple, set, frozenset) or hint in (list, tuple):
        return "list"
    if isinstance(hint, type):
        if issubclass(hint, Record):
            return "record"
        kinds = ((bool, "condition"), (int, "number"), (float, "number"), (str, "text"))
        return next((kind for parent, kind in kinds if issubclass(hint, parent)), "anything")
    return "anything"
