"""Version 1: the first tables, on SQLite only. Nothing leads to it: stores of this version were made by icestream itself."""

revision = "1"
down_revision = None


def upgrade() -> None:
    """Do nothing: the tables are there."""
