"""The steps of the page about extraction can be built into one workflow."""

import re
from pathlib import Path

import yaml

from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Workflow

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "extract.md"
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
AROUND = """
movies: {use: import_movies}
aligned: {use: motion, in: {movie: movies}}
aligned_locally: {use: motion, in: {movie: movies}}
ctf: {use: ctf, in: {micrograph: aligned}}
local: {use: ctf_local, in: {micrograph: aligned, ctf: ctf}}
good: {use: ctf_filter, in: {micrograph: aligned, ctf: ctf}}
picks: {use: pick_blob, in: {micrograph: aligned}, params: {diameter_ang: [100, 120]}}
chosen: {use: rejected_particles, in: {particles: particles}}
classes: {use: classify2d, in: {particles: particles}}
"""


def test_all_examples_fit_together() -> None:
    steps = yaml.safe_load(AROUND)
    for example in EXAMPLES:
        steps |= yaml.safe_load(example)["steps"]
    graph = build_graph(Workflow.model_validate({"steps": steps}))
    assert {"particles", "rest", "full_size", "coordinates", "centred", "defocus", "balanced"} <= set(graph.nodes)
    assert graph.inputs_of("centred") == {"aligned", "particles", "classes"}
