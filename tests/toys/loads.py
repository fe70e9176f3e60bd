"""Steps that carry loads of the size of real ones, to measure what an engine costs."""

import random
from typing import ClassVar

from icestream.flow import Context, Field, Params, step
from icestream.records import Block, Movie, Record
from toys.steps import Number


@step.map("toy_pass_movie", version=1, memory_gb=0.1)
def pass_movie(movie: Movie) -> Movie:
    """Do nothing with a movie."""
    return movie


class Table(Record):
    """A table with a row for each particle."""

    stored_name: ClassVar[str] = "toy.Table"

    value: int
    note: str
    rows: int
    block: Block

    @property
    def weight(self) -> int:
        """The number of particles."""
        return self.rows


class TableParams(Params):
    """How large the table is."""

    rows: int = Field(300, ge=0, description="Particles")
    row_bytes: int = Field(28, ge=1, description="Bytes of each")
    note_bytes: int = Field(500, ge=0, description="Length of what is written beside it")


@step.map("toy_tabulate", version=1, memory_gb=0.1)
def tabulate(number: Number, params: TableParams, ctx: Context) -> Table:
    """Make a table of particles that does not compress."""
    block = random.Random(ctx.seed).randbytes(params.rows * params.row_bytes)
    return Table(value=number.value, note="x" * params.note_bytes, rows=params.rows, block=block)
