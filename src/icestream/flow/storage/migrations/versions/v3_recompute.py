"""Version 3: parameters that an exposure has of its own; the outcomes of accumulators say which results they took."""

import json

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"


def upgrade() -> None:
    """Add a table, and to the outcomes of accumulators what stands in their logs."""
    op.create_table(
        "recompute",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("unit", sa.String, nullable=False),
        sa.Column("step", sa.String, nullable=False),
        sa.Column("params", sa.Text, nullable=False),
        sa.Column("replaced", sa.Text, nullable=False),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False, unique=True),
    )
    op.create_index("recompute_by_unit", "recompute", ["unit", "step"])
    _note_what_was_taken(op.get_bind())
    op.execute("UPDATE runner SET schema_version = 3")


def _note_what_was_taken(connection: sa.Connection) -> None:
    log = sa.table("accumulator_log", sa.column("revision"), sa.column("members"))
    outcome = sa.table("outcome", sa.column("revision"), sa.column("unit"), sa.column("status"), sa.column("keys"))
    change = (
        sa.update(outcome)
        .where((outcome.c.revision == sa.bindparam("of_revision")) & (outcome.c.unit == sa.bindparam("of_unit")))
        .values(keys=sa.bindparam("new_keys"))
    )
    for revision_id in connection.execute(sa.select(log.c.revision).distinct()).scalars().all():
        items = sa.select(outcome.c.unit, outcome.c["keys"]).where(
            (outcome.c.revision == revision_id) & (outcome.c.status == "item")
        )
        known = {row[0]: json.loads(row[1]) for row in connection.execute(items)}
        members = connection.execute(sa.select(log.c.members).where(log.c.revision == revision_id)).scalars().all()
        changes = [
            {
                "of_revision": revision_id,
                "of_unit": unit,
                "new_keys": json.dumps({**known[unit], **{f"taken.{port}": key for port, key in keys.items()}}),
            }
            for text in members
            for unit, keys in json.loads(text)
            if unit in known
        ]
        if changes:
            connection.execute(change, changes)
