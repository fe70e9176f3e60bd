"""Pages and tables in Markdown."""

from collections.abc import Iterable, Sequence

from pydantic import BaseModel

from icestream.cli.fields import describe_fields

_NOTE = "<!-- Written by `make docs` from the source; changes here are lost. -->"


def page(title: str, *parts: str) -> str:
    """Return a page; empty parts are left out."""
    return "\n\n".join([_NOTE, f"# {title}", *(part.strip() for part in parts if part.strip())]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [" | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in [" | ".join(head), " | ".join("---" for _ in head), *lines])


def fields_table(model: type[BaseModel], *, prefix: str = "") -> str:
    """Return the fields as a table; columns that say nothing are left out."""
    head = ["name", "type", "unit", "default", "range", "description"]
    rows = [[f"`{prefix}{f.name}`", f.type, f.unit, f.default, f.range, f.description] for f in describe_fields(model)]
    used = [column for column in range(len(head)) if any(row[column] for row in rows)]
    return table([head[column] for column in used], ([row[column] for column in used] for row in rows))
