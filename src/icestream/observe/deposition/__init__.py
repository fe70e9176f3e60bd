"""Packages for the archives of the field, written beside a session: a map for the EMDB, raw data for EMPIAR."""

from icestream.observe.deposition.emdb import write_emdb_package
from icestream.observe.deposition.empiar import read_about, write_empiar_package

__all__ = ["read_about", "write_emdb_package", "write_empiar_package"]
