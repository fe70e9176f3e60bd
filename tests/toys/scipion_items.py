"""Protocols of Scipion as they are in an export, translated."""

import json
from typing import Any

from icestream.workflows.scipion.parse import parse_scipion
from icestream.workflows.scipion.translate import translate_scipion
from icestream.workflows.scipion.translation import Row, Translation

Item = dict[str, Any]


def item(name: str, identity: int, **values: Any) -> Item:
    return {"object.className": name, "object.id": str(identity), "object.label": name, **values}


def translate(*items: Item) -> Translation:
    return translate_scipion(parse_scipion(json.dumps(items), name="here"))


def row_of(translation: Translation, identity: int) -> Row:
    return next(row for row in translation.rows if row.protocol.id == str(identity))
