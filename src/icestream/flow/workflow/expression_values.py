"""Applying a condition to the records of one exposure, and saying why it does not hold.

A field that is unset makes every comparison with it false, and arithmetic with it unset; ``exists(field)`` and ``field == None``
ask for that alone. ``not`` turns such a comparison true, like any false one.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from icestream.errors import ItemError
from icestream.flow.workflow.expression import Condition, path_of, split_path
from icestream.records import Record

_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: lambda left, right: float(left) ** right,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
_MOST_DIGITS = 20


def why_not(condition: Condition, records: Mapping[str, Record | None]) -> str | None:
    """Return why a condition does not hold for ``records`` (prefix → record; ``""`` needs none), or None if it holds.

    The reason shows the values: ``defocus_u_ang = 34000, wanted defocus_u_ang < 30000``.

    Raises
    ------
    ItemError
        It cannot be applied to these values: a division by zero, a number that grows too large, values of the wrong kind.
    """
    reader = _Reader(condition, records)
    try:
        return None if reader.truth(condition.tree) else "; ".join(dict.fromkeys(reader.failures(condition.tree)))
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ItemError(f"the condition {condition.text!r} cannot be applied to this exposure: {error}") from error


@dataclass(frozen=True)
class _Reader:
    condition: Condition
    records: Mapping[str, Record | None]

    def truth(self, node: ast.expr) -> bool:
        """Tell whether a part that is a condition holds."""
        match node:
            case ast.BoolOp(op=ast.And()):
                return all(self.truth(value) for value in node.values)
            case ast.BoolOp():
                return any(self.truth(value) for value in node.values)
            case ast.UnaryOp(op=ast.Not()):
                return not self.truth(node.operand)
            case ast.Compare():
                return self._compare(node)
        value = self.value(node)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise TypeError(f"{self._text(node)} = {_say(value)} is not a condition")

    def value(self, node: ast.expr) -> Any:
        """Return the value of a part; None if a field in it is unset."""
        found: Any
        match node:
            case ast.Constant():
                found = node.value
            case ast.Tuple() | ast.List():
                found = [self.value(element) for element in node.elts]
            case ast.Name() | ast.Attribute():
                found = self._field(node)
            case ast.Call():
                found = self._call(node)
            case ast.BinOp():
                left, right = self._number(node.left), self._number(node.right)
                found = None if left is None or right is None else _ARITHMETIC[type(node.op)](left, right)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                number = self._number(node.operand)
                found = -number if number is not None and isinstance(node.op, ast.USub) else number
            case _:
                found = self.truth(node)
        return found

    def _number(self, node: ast.expr) -> Any:
        value = self.value(node)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise TypeError(f"{self._text(node)} = {_say(value)} is not a number")
        return value

    def _field(self, node: ast.expr) -> Any:
        prefix, names = split_path(path_of(node) or (), self.records)
        found: Any = self.records.get(prefix)
        for name in names:
            if found is None:
                return None
            if not isinstance(found, Record) or name not in type(found).model_fields:
                raise TypeError(f"{self._text(node)}: there is no field {name!r}")
            found = getattr(found, name)
        return found

    def _call(self, node: ast.Call) -> Any:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "exists":
            return self.value(node.args[0]) is not None
        if name == "len":
            value = self.value(node.args[0])
            if value is not None and not isinstance(value, str | list | tuple):
                raise TypeError(f"{self._text(node.args[0])} = {_say(value)} has no length")
            return None if value is None else len(value)
        numbers = [self._number(argument) for argument in node.args]
        if any(number is None for number in numbers):
            return None
        if name == "round":
            digits = int(numbers[1]) if len(numbers) > 1 else 0
            if abs(digits) > _MOST_DIGITS:
                raise ValueError(f"round to {digits} digits: at most {_MOST_DIGITS} are allowed")
            return round(float(numbers[0]), digits)
        return abs(numbers[0]) if name == "abs" else (min if name == "min" else max)(numbers)

    def _compare(self, node: ast.Compare) -> bool:
        operands = [node.left, *node.comparators]
        pairs = zip(operands, node.ops, operands[1:], strict=False)
        return all(self._holds(left, comparison, right) for left, comparison, right in pairs)

    def _holds(self, left: ast.expr, comparison: ast.cmpop, right: ast.expr) -> bool:
        first, second = self.value(left), self.value(right)
        asks_for_unset = isinstance(comparison, ast.Eq | ast.NotEq) and (_is_none(left) or _is_none(right))
        if not asks_for_unset and (first is None or second is None):
            return False
        return bool(_COMPARE[type(comparison)](first, second))

    # Reasons ---------------------------------------------------------------------------------------------------------------

    def failures(self, node: ast.expr) -> list[str]:
        """Return, for a part that does not hold, what would have to be otherwise."""
        match node:
            case ast.BoolOp(op=ast.And()):
                return [line for value in node.values if not self.truth(value) for line in self.failures(value)]
        values = {self._text(part): self._field(part) for part in _outer_fields(node)}
        shown = [f"{text} is unset" if value is None else f"{text} = {_say(value)}" for text, value in values.items()]
        return [", ".join([*shown, f"wanted {self._text(node)}"])]

    def _text(self, node: ast.expr) -> str:
        return ast.unparse(node)


def _outer_fields(node: ast.expr) -> list[ast.expr]:
    """Return the fields in a part, whole (``motion.total_px``, not ``motion``)."""
    if isinstance(node, ast.Name | ast.Attribute):
        return [node]
    inside = node.args if isinstance(node, ast.Call) else list(ast.iter_child_nodes(node))
    return [found for child in inside if isinstance(child, ast.expr) for found in _outer_fields(child)]


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _say(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, Record):
        return f"a {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
