"""Ask the web interface at random by what its OpenAPI document says: python scripts/fuzz_interface.py [minutes] [seed].

Sessions are made in a temporary folder. Prints what schemathesis found; the exit status is 1 if an answer was an error of the
server or contradicted the document.
"""

import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "observe")]

from web.fuzzing import fuzz  # noqa: E402 - found where the line above says


def main(minutes: float, seed: int) -> int:
    """Run, print, and return the exit status."""
    with tempfile.TemporaryDirectory(prefix="icestream-fuzz-") as folder:
        found = fuzz(Path(folder) / "run", seconds=round(60 * minutes), seed=seed)
    print(found.said)  # noqa: T201 - what a person reads
    return 0 if found.passed else 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0, int(sys.argv[2]) if len(sys.argv) > 2 else 1))
