"""``python -m icestream`` is the command ``icestream``."""

from icestream.cli import app

app(prog_name="icestream")
