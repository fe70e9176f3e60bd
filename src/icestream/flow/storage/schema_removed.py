"""The tables of files that people, or rules, have removed: their results stay, and can be computed again."""

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Index, Integer, String, Table, Text

from icestream.flow.storage.schema_people import metadata

removal = Table(  # files that were removed together, by one request
    "removal",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("what", Text, nullable=False),  # what was asked for, as JSON
    Column("author", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", String, nullable=False),  # moving -> trash -> undoing -> undone, or trash -> emptying -> gone
    Column("n_files", Integer, nullable=False),
    Column("n_bytes", BigInteger, nullable=False),
    Column("at", Float, nullable=False),
    Column("goes_at", Float, nullable=False),  # until then it can be undone
    Column("done_by", String),  # who undid it, or let it go before its time
)

removed_file = Table(  # a file that is not in its place; the row goes when it is back
    "removed_file",
    metadata,
    Column("ref", Text, primary_key=True),
    Column("key", String, nullable=False),  # of the result that names it first
    Column("removal", ForeignKey("removal.id"), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("wanted", Boolean, nullable=False),  # somebody asked for it to be computed again
)
Index("removed_file_by_key", removed_file.c.key)
Index("removed_file_by_removal", removed_file.c.removal)
