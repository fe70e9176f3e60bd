"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

_SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; a test that needs it is skipped by name where it is missing."""
    if not _SHARED_DATA.is_dir():
        pytest.skip("real data are missing: the folder shared/data beside the checkout")
    return _SHARED_DATA
