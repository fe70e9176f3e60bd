"""Version 4: what people see of records is kept with the session; the runner fills the table when it takes up the workflow."""

import sqlalchemy as sa
from alembic import op

revision = "4"
down_revision = "3"


def upgrade() -> None:
    """Add a table."""
    op.create_table(
        "description",
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("subject", "name", "version"),
    )
    op.execute("UPDATE runner SET schema_version = 4")
