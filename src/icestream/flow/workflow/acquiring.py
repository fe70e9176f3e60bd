"""Which values of a microscope are possible: a slip of the unit is told at once, where it would give a meaningless CTF."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from icestream.errors import ItemError
from icestream.records import Acquisition, PossibleAcquisition


def checked_acquisition(values: Mapping[str, Any]) -> Acquisition:
    """Return the values of one exposure, from the session or its own files, as a step gets them.

    Raises
    ------
    ItemError
        A value is outside of what is possible.
    """
    try:
        PossibleAcquisition.model_validate(values)
    except ValidationError as error:
        told = "; ".join(describe_refused(error))
        raise ItemError(f"{told}; the session's acquisition values override those in files") from None
    return Acquisition.model_validate(values)


def refuse_impossible(acquisition: Acquisition) -> Acquisition:
    """Check the values of a session's document; for pydantic, which tells where they stand."""
    try:
        PossibleAcquisition.model_validate(acquisition.model_dump())
    except ValidationError as error:
        raise PydanticCustomError("impossible", "{told}", {"told": "; ".join(describe_refused(error))}) from None
    return acquisition


def describe_refused(error: ValidationError) -> list[str]:
    """Return a sentence for each value of a microscope that is refused: which, what it is, what is allowed."""
    return [_describe(str(issue["loc"][-1]), issue["input"], str(issue["msg"])) for issue in error.errors()]


def _describe(name: str, value: object, message: str) -> str:
    schema = PossibleAcquisition.model_json_schema()["properties"].get(name, {})
    number: dict[str, Any] = next((branch for branch in schema.get("anyOf", []) if branch["type"] != "null"), {})
    if not isinstance(value, int | float) or "maximum" not in number:
        return f"{name} is {value}: {message}"
    lowest = f"{number['minimum']:g} to" if "minimum" in number else f"above {number['exclusiveMinimum']:g} and at most"
    return f"{name} is {value:g}; must be {lowest} {number['maximum']:g} {number.get('unit', '')}".rstrip()
