"""Makes the toy steps of the tests importable, here and in the worker processes that are started from here."""

import os
import sys
from pathlib import Path

_TESTS = str(Path(__file__).resolve().parents[1] / "tests")

sys.path.insert(0, _TESTS)
os.environ["PYTHONPATH"] = os.pathsep.join([_TESTS, *filter(None, [os.environ.get("PYTHONPATH")])])
