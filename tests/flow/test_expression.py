"""Conditions on fields: what they mean, what is refused, and that hostile ones do no harm."""

import ast
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from icestream.errors import ItemError, WorkflowError
from icestream.flow.workflow.expression import DEEPEST, FUNCTIONS, LONGEST_TEXT, check_condition, parse_condition
from icestream.flow.workflow.expression_values import why_not
from icestream.records import Micrograph, Motion, Picks, Record


class Sample(Record):
    defocus_um: float = 3.4
    resolution_ang: float | None = None
    count: int = 12
    good: bool = True
    kind: Literal["carbon", "gold"] = "gold"
    name: str | None = "grid3_0007"
    values: list[float] = Field(default=[1.0, 2.5])
    motion: Motion | None = None
    block: bytes = b"secret"


MOVED = Motion(global_yx_px=[(0, 0), (1, 2)], total_px=2.5, early_px=1.0)
SCOPE = {"": Sample, "item": Sample, "other": Sample}


def reason(text: str, *, other: Sample | None = None, **values: Any) -> str | None:
    condition = parse_condition(text)
    check_condition(condition, SCOPE)
    item = Sample(**values)
    return why_not(condition, {"": item, "item": item, "other": other or Sample(defocus_um=1.0)})


@pytest.mark.parametrize(
    "text",
    [
        "defocus_um < 4",
        "defocus_um < 4 and not count > 20",
        "1 < defocus_um <= 3.4 < 10",
        "kind == 'gold' and kind in ('gold', 'carbon')",
        "'grid3' in name and name not in ['x']",
        "2.5 in values and len(values) == 2 and len(name) > 3",
        "good",
        "not (count < 5 or good == False)",
        "abs(-count) + 2 * 3 - 1 == 17 and 7 // 2 == 3 and 7 % 2 == 1 and 8 / 2 == 4",
        "defocus_um ** 2 < 12 and 2 ** -1 == 0.5",
        "min(defocus_um, 2) == 2 and max(1, count, 3) == 12",
        "round(defocus_um) == 3 and round(defocus_um, 1) == 3.4",
        "other.defocus_um < item.defocus_um",
        "not exists(resolution_ang) and resolution_ang == None and name != None",
        "defocus_um < 1 or count == 12",
        "True",
    ],
)
def test_what_holds(text: str) -> None:
    assert reason(text) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defocus_um < 3", "defocus_um = 3.4, wanted defocus_um < 3"),
        ("defocus_um < 3 and count == 12", "defocus_um = 3.4, wanted defocus_um < 3"),
        ("defocus_um < 3 and count < 5", "defocus_um = 3.4, wanted defocus_um < 3; count = 12, wanted count < 5"),
        ("defocus_um < 3 or count < 5", "defocus_um = 3.4, count = 12, wanted defocus_um < 3 or count < 5"),
        ("resolution_ang <= 6", "resolution_ang is unset, wanted resolution_ang <= 6"),
        ("resolution_ang + 1 > 0", "resolution_ang is unset, wanted resolution_ang + 1 > 0"),
        ("motion.total_px < 3", "motion.total_px is unset, wanted motion.total_px < 3"),
        ("exists(motion)", "motion is unset, wanted exists(motion)"),
        ("kind == 'carbon'", "kind = 'gold', wanted kind == 'carbon'"),
        ("len(values) > 5", "values = a list of 2, wanted len(values) > 5"),
        ("other.count > 50", "other.count = 12, wanted other.count > 50"),
        ("False", "wanted False"),
    ],
)
def test_a_reason_shows_values_and_what_was_wanted(text: str, said: str) -> None:
    assert reason(text) == said


def test_a_field_of_a_record_inside() -> None:
    assert reason("motion.total_px < 3 and len(motion.global_yx_px) == 2", motion=MOVED) is None
    assert reason("motion.total_px < 2", motion=MOVED) == "motion.total_px = 2.5, wanted motion.total_px < 2"


@pytest.mark.parametrize("comparison", ["<", "<=", ">", ">=", "==", "!="])
def test_every_comparison_with_an_unset_field_is_false(comparison: str) -> None:
    assert reason(f"resolution_ang {comparison} 6") is not None
    assert reason(f"not resolution_ang {comparison} 6") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defocus < 3", "Sample has no field 'defocus'; it has defocus_um, resolution_ang, count"),
        ("motion.speed < 3", "Motion has no field 'speed'; it has global_yx_px"),
        ("defocus_um.real < 3", "'real': what is before it has no fields"),
        ("defocus_um.__class__ == 3", "what is before it has no fields"),
        ("block == 'x'", "has no field 'block'"),
        ("__class__ == 3", "has no field '__class__'"),
        ("model_fields == 3", "has no field 'model_fields'"),
        ("third.count < 3", "has no field 'third'"),
        ("defocus_um", "is a number, not a condition"),
        ("'x'", "is a text, not a condition"),
        ("defocus_um and good", "'defocus_um': is a number; a condition is expected here"),
        ("defocus_um < 'x'", "a number cannot be compared with a text"),
        ("kind < 3", "a text cannot be compared with a number"),
        ("name + 'x' == 'y'", "'name': is a text; a number is expected here"),
        ("good + 1 > 1", "'good': is a condition; a number is expected here"),
        ("-kind == 1", "is a text; a number is expected here"),
        ("count in (1, 'a')", "is a text; a number is expected here"),
        ("count in 3", "cannot be compared"),
        ("count == (1, 2)", "cannot be compared"),
        ("count < None", "cannot be compared"),
        ("motion < 3", "a record cannot be compared with a number"),
        ("len(count) > 1", "a number has no length"),
        ("exists(count + 1)", "exists takes a field"),
        ("round() > 1", "round takes 1 to 2 values"),
        ("abs(1, 2) > 1", "abs takes one value"),
        ("abs(x=1) > 1", "abs takes one value"),
        ("open('/etc/passwd') == 1", "no function is called 'open'; there are abs, min"),
        ("__import__('os').system('true') == 0", "no function is called"),
        ("(lambda: 1)() == 1", "no function is called"),
        ("[x for x in values] == 1", "ListComp is not allowed"),
        ("values[0] > 1", "Subscript is not allowed"),
        ("(1, 2)", "Tuple is not allowed"),
        ("f'{count}' == '1'", "JoinedStr is not allowed"),
        ("count if good else 3", "IfExp is not allowed"),
        ("(count := 3) > 1", "NamedExpr is not allowed"),
        ("1j == 1", "Constant is not allowed|is not allowed"),
        ("b'x' == 'x'", "is not allowed"),
        ("count is 3", "is not allowed"),
        ("count & 3 == 1", "BinOp is not allowed"),
        ("~count == 1", "UnaryOp is not allowed"),
        ("'a'.join == 1", "only fields of records have a dot"),
        ("2 ** 9 > 1", "an exponent must be a number from -8 to 8"),
        ("2 ** count > 1", "an exponent must be a number from -8 to 8"),
        ("count < 1e300", "a number must be at most 1e\\+15"),
        ("count <", "cannot be read"),
        ("count = 3", "cannot be read"),
        ("import os", "cannot be read"),
        ("count < 3\ncount < 4", "cannot be read"),
        ("", "cannot be read"),
        ("count\0 < 3", "cannot be read"),
        ("(" * 300 + "1" + ")" * 300, "cannot be read|nested"),
        ("not " * 100 + "good", "nested deeper than 25"),
        ("-" * 900 + "1 < 2", "nested deeper|cannot be read"),
        ("1" + "+1" * 400 + " < 2", "nested deeper"),
        ("good and " * 200 + "good", "characters; at most 1000 are allowed"),
    ],
)
def test_what_is_refused_when_the_graph_is_built(text: str, said: str) -> None:
    with pytest.raises(WorkflowError, match=said):
        check_condition(parse_condition(text), SCOPE)


@pytest.mark.parametrize(
    "text",
    [
        "1 / (count - 12) > 1",
        "count % (count - 12) == 1",
        "((((count ** 8) ** 8) ** 8) ** 8) > 1",
        "(-2) ** 0.5 > 1",
        "1 / 0 > 1",
    ],
)
def test_what_cannot_be_applied_fails_that_exposure_alone(text: str) -> None:
    with pytest.raises(ItemError, match="cannot be applied to this exposure"):
        reason(text)


def test_rounding_to_a_million_digits_does_not_hang() -> None:
    with pytest.raises(ItemError, match="round to -1000000 digits"):
        reason("round(count, -1000000) > 1")


_NAMES = st.sampled_from(["defocus_um", "resolution_ang", "count", "good", "kind", "name", "values", "motion", "motion.total_px"])
_LEAVES = _NAMES | st.sampled_from(["1", "0", "-3.5", "1e9", "'gold'", "True", "None", "other.count", "item.name"])
_PYTHON = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["<", "==", "!=", ">=", "in", "not in", "+", "-", "*", "/", "%", "//"]), inner).map(
            lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
        ),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"),
        st.tuples(inner, st.integers(-9, 9)).map(lambda parts: f"({parts[0]} ** {parts[1]})"),
        st.tuples(st.sampled_from([*FUNCTIONS, "open", "type"]), st.lists(inner, max_size=3)).map(
            lambda parts: f"{parts[0]}({', '.join(parts[1])})"
        ),
        inner.map(lambda text: f"(not {text})"),
    ),
    max_leaves=25,
)
_ANYTHING = st.text(max_size=60) | st.text("()[]{}<>=!+-*/%.,'\"0123456789eEjxabcor notin_\\\n#:", max_size=80)


def _try(text: str, *, check: bool) -> None:
    item = Sample(motion=MOVED)
    try:
        condition = parse_condition(text)
        if check:
            check_condition(condition, SCOPE)
        assert isinstance(why_not(condition, {"": item, "item": item, "other": item}), str | None)
    except (WorkflowError, ItemError) as error:
        assert str(error)


@settings(max_examples=400, deadline=None)
@given(_PYTHON, st.booleans())
def test_well_formed_conditions_never_do_anything_else_than_hold_or_not(text: str, check: bool) -> None:
    _try(text, check=check)


@settings(max_examples=400, deadline=None)
@given(_ANYTHING)
def test_any_text_is_read_or_refused(text: str) -> None:
    _try(text, check=False)


@settings(max_examples=200, deadline=None)
@given(_PYTHON)
def test_what_passes_the_check_means_what_python_means_by_it(text: str) -> None:
    """The reference is Python itself on plain numbers, where nothing is unset."""
    plain = {"defocus_um": 3.4, "count": 12, "good": True, "kind": "gold", "name": "grid3_0007", "values": [1.0, 2.5]}
    try:
        condition = parse_condition(text)
        check_condition(condition, SCOPE)
        mine = why_not(condition, {"": Sample(), "item": Sample(), "other": Sample()}) is None
    except (WorkflowError, ItemError):
        return
    names = {node.id for node in ast.walk(condition.tree) if isinstance(node, ast.Name)} - set(FUNCTIONS)
    if names <= set(plain) and "None" not in text and "exists" not in text:
        theirs = eval(compile(ast.Expression(condition.tree), "c", "eval"), {"__builtins__": {}}, {**plain, **_CALLS})  # noqa: S307
        assert mine == bool(theirs)


_CALLS: dict[str, Any] = {"abs": abs, "min": min, "max": max, "len": len, "round": lambda x, n=0: round(float(x), int(n))}


def test_limits_are_what_the_documentation_says() -> None:
    assert (LONGEST_TEXT, DEEPEST) == (1000, 25)


def test_records_of_the_house_can_be_asked() -> None:
    check_condition(
        parse_condition("motion.total_px < 20 and dose_weighted and other.count > 50"), {"": Micrograph, "other": Picks}
    )
