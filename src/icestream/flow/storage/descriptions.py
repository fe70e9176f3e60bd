"""What is shown of records and of streams that a step compares: kept with the session, for views without the software."""

from collections.abc import Iterable

from sqlalchemy import Connection, insert, select, update

from icestream.flow.declaration import Kind
from icestream.flow.storage import store_schema as schema
from icestream.flow.workflow import Node
from icestream.records import describe_record, named_records, write_comparison, write_description, write_method

_MAKERS = (Kind.SOURCE, Kind.MAP, Kind.ACCUMULATE)


def keep_descriptions(connection: Connection, nodes: Iterable[Node]) -> None:
    """Keep what is declared now for the records that steps make; of one version of a type, the latest declaration holds."""
    table = schema.description
    known = {(row.subject, row.name, row.version): row.content for row in connection.execute(select(table))}
    for (subject, name, version), content in _declared(nodes).items():
        if (subject, name, version) not in known:
            row = {"subject": subject, "name": name, "version": version, "content": content}
            connection.execute(insert(table).values(**row))
        elif known[subject, name, version] != content:
            mine = (table.c.subject == subject) & (table.c.name == name) & (table.c.version == version)
            connection.execute(update(table).where(mine).values(content=content))


def _declared(nodes: Iterable[Node]) -> dict[tuple[str, str, int], str]:
    found: dict[tuple[str, str, int], str] = {}
    for node in nodes:
        made = tuple(one for one in (node.type.output, node.type.assigns) if one is not None and node.type.kind in _MAKERS)
        for record in named_records():
            if issubclass(record, made):  # a step may return what is derived from the record that it declares
                found["record", record.stored_name, record.schema_version] = write_description(describe_record(record))
        if node.type.compares is not None:
            found["step", node.use, node.type.version] = write_comparison(node.type.compares)
        if node.type.method is not None:
            found["method", node.use, node.type.version] = write_method(node.type.method)
    return found
