"""Version 6: notices say in fields what they are about; until now only their text did."""

import re

import sqlalchemy as sa
from alembic import op

revision = "6"
down_revision = "5"

_CONTRADICTION = re.compile(r"(.+): the session says (\S+)(?: \S+)?, but ")
_VALUES = {
    "Acceleration voltage": "voltage_kv",
    "Spherical aberration": "cs_mm",
    "Fraction of amplitude contrast": "amplitude_contrast",
    "Pixel size of the raw movie": "pixel_size_ang",
    "Dose of one frame": "dose_per_frame_e_per_ang2",
    "Dose before the first frame": "pre_exposure_e_per_ang2",
}
"""What the values were called in the notices of version 5 and before."""


def upgrade() -> None:
    """Add columns; fill them where a notice must not be told twice: that a file contradicts a value of the session."""
    for name in ("cause", "subject", "by"):
        op.add_column("notice", sa.Column(name, sa.String))
    _fill_contradictions(op.get_bind())
    op.execute("UPDATE runner SET schema_version = 6")


def _fill_contradictions(connection: sa.Connection) -> None:
    columns = ("seq", "message", "cause", "subject")
    notice = sa.table("notice", *[sa.column(name) for name in columns])
    told = sa.select(notice.c.seq, notice.c.message).where(notice.c.message.contains(": the session says "))
    for seq, message in connection.execute(told).all():
        found = _CONTRADICTION.match(message)
        if found is not None and found[1] in _VALUES:
            values = {"cause": "acquisition", "subject": f"{_VALUES[found[1]]}={found[2]}"}
            connection.execute(sa.update(notice).where(notice.c.seq == seq).values(**values))
