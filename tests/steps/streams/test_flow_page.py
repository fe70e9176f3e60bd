"""The workflows of the page about the flow of data are whole: they can be built."""

import re
from pathlib import Path

import pytest
import yaml

from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Workflow

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "control-the-flow.md"
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_can_be_built(number: int) -> None:
    build_graph(Workflow.model_validate(yaml.safe_load(EXAMPLES[number])))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5
