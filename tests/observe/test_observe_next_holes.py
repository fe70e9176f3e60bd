"""What the score of the next holes goes by where nobody says it: the ice, as the steps that measure it call it."""

from pathlib import Path

import pytest
from paper_every_record import write_every_record

from icestream.flow.declaration import find_step
from icestream.observe.measured import list_measures
from icestream.observe.next_holes import THICKNESSES, NextQuery, read_next_holes, thickness_of
from icestream.observe.queries import open_view

BEST_FIRST = ["passing:ice_transmission_mean_free_paths", "local:ctf_local_thickness_angstroms", "water:ice_ring_percent"]


def test_the_thickness_of_the_ice_is_what_holes_go_by_in_the_order_of_trust(tmp_path: Path):
    with open_view(write_every_record(tmp_path / "session").session) as view:
        choices = list_measures(view, view.steps())
        assert read_next_holes(view, NextQuery()).goes_with == BEST_FIRST[0]
    found = []
    while (one := thickness_of(choices)) is not None:
        found.append(one.id)
        choices = [other for other in choices if other.id != one.id]
    assert found == BEST_FIRST


@pytest.mark.parametrize(("step", "metric"), list(zip(("ice_transmission", "ctf_local", "ice_ring"), THICKNESSES, strict=True)))
def test_the_steps_that_measure_ice_declare_it_so(step: str, metric: str):
    made = find_step(step).output
    assert made is not None
    assert metric in [one.metric for one in made.shown.measures]
