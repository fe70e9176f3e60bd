"""The notebook of the documentation runs."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "read-results.ipynb"


def test_the_cells_of_the_notebook_run_in_their_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    monkeypatch.chdir(folder.parent)
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (book["nbformat"], {cell["cell_type"] for cell in book["cells"]}) == (4, {"code", "markdown"})
    cells = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    space: dict = {"__name__": "notebook"}
    for cell in cells:
        exec(compile(cell, NOTEBOOK.name, "exec"), space)  # noqa: S102
    assert len(space["resolution"]) == 6
    assert space["mean_image"].ndim == 2
    assert (folder.parent / "particles.parquet").is_file()


def test_the_notebook_keeps_no_output() -> None:
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in book["cells"] if cell["cell_type"] == "code")
    assert not re.search(r"/(home|work|tmp)/", NOTEBOOK.read_text(encoding="utf-8"))
