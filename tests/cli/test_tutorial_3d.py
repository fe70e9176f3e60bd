"""The tutorial of a facility's session in 3D: its commands, typed one block after the other into one shell."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from icestream.facility.runners import find_runner
from icestream.flow.storage.session import open_session
from icestream.observe.queries import SessionView, open_view
from toys.shell import Shell, blocks, kill_runner, until

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "acquisition-in-3d.md"
MOVIES = 6
_SEARCH = "starts=2 passes=12 tries=1 quick_particles=100 limit_ang=25"
_QUICK = {
    "volume_of_starts": _SEARCH,
    "volume_of_averages": f"{_SEARCH} common_lines=false",
    "initial": "rounds=1 train_particles=60 test_particles=20 limit_ang=25",
    "poses": "max_iterations=3",
    "refined": "max_iterations=3",
    "first_3d": "passes=5 limit_ang=25",
    "second_3d": "passes=5 limit_ang=25",
    "third_3d": "passes=5 limit_ang=25",
    "quality": "local_resolution=false most_order=3",
    "static_selected": "min_score=0",
    "selected": "min_score=0",
    "good": "min_confidence=null max_resolution_ang=60",
    "level": "max_std=1",
    "agreed_ctf": "min_agreement_ang=60 min_confidence_of_both=0",
    "classes": "limit_ang=20 psi_step_deg=15 first_iterations=6 anneal_iterations=4 first_particles=60",
    "static_classes": "limit_ang=20 psi_step_deg=15 first_iterations=6 anneal_iterations=4 first_particles=60",
}
CHANGED = {
    "--movies 40 --seconds-per-movie 15 --set pixel_size_ang=2 --set n_particles=60": f"--movies {MOVIES} --seconds-per-movie 4 "
    "--set pixel_size_ang=4 --set n_particles=40 --set height_px=512 --set width_px=512 --set n_frames=5 "
    "--set dose_per_frame_e_per_ang2=10 --set phantom_diameter_ang=180 --set b_factor_ang2=10 --set drift_px=[0.5,2] "
    "--set particle_contrast=1",
    "--pixel-size 2 --dose-per-frame 2.5 --diameter 135 165": "--pixel-size 4 --dose-per-frame 10 --diameter 160 200",
    "--set box_2d=64 --set box_3d=64 --set first_movies=4": "--set box_2d=48 --set box_3d=48 --set first_movies=2",
    "--set classes_2d=12": "--set classes_2d=4",
    "--set static_particles=600 --set first_exposures=20": "--set static_particles=100 --set first_exposures=20",
    "--set finest=10": "--set finest=20",
    "--set movies.max_files=40": f"--set movies.max_files={MOVIES} "
    + " ".join(f"--set {step}.{value}" for step, values in _QUICK.items() for value in values.split()),
}
"""What a test need not wait for: large movies, fine searches, and a microscope's pace."""


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """The session after the last block of the page, and what each block printed."""
    shell = Shell(tmp_path_factory.mktemp("tutorial"))
    session = shell.home / "acquisition" / "session"
    try:
        page, said = blocks(PAGE), []
        for old in CHANGED:
            assert any(old in block for block in page), old
        for block in page:
            if "icestream stop" in block:
                until("the first exposures", lambda: _n_items(session, "ctf") >= 1)
            if block == "icestream report session\n":
                until("the end of the session", lambda: find_runner(session) is None)
            said.append(shell.type(_changed(block)))
            if "--detach" in block:  # it has the session a moment after the command has ended
                until("the runner", lambda: find_runner(session) is not None)
        yield session, said
    finally:
        shell.close()
        kill_runner(session)


def _changed(block: str) -> str:
    for old, new in CHANGED.items():
        block = block.replace(old, new)
    return block


def _n_items(session: Path, step: str) -> int:
    with open_view(open_session(session)) as view:
        return next((one.counts.item for one in view.steps() if one.name == step), 0)


@pytest.fixture
def view(typed: tuple[Path, list[str]]) -> Iterator[SessionView]:
    with open_view(open_session(typed[0])) as opened:
        yield opened


@pytest.mark.services
@pytest.mark.timeout(900)
def test_its_commands_lead_from_movies_to_a_map(view: SessionView) -> None:
    assert [item.reason for item in view.failed()] == []
    counts = {one.name: one.counts for one in view.steps()}
    assert counts["movies"].item == MOVIES  # those that came while the session was stopped were taken
    assert counts["good"].item >= 4
    initial, refined = (view.snapshots(name, limit=1)[0].record for name in ("initial", "refined"))
    assert (len(initial["candidates"]), initial["verdict"], refined["verdict"]) == (2, "map", "map")
    assert refined["count"] == sum(one.record["count"] for one in view.records("particles_3d"))
    assert len(view.snapshots("groups", limit=1)[0].record["classifications"]) == 3


@pytest.mark.services
def test_a_restart_computes_only_what_it_says(typed: tuple[Path, list[str]], view: SessionView) -> None:
    with open_view(open_session(typed[0])) as opened:
        revisions = {one.name: one.revision for one in opened.steps()}
    assert (revisions["first_3d"], revisions["groups"]) == (2, 2)
    assert {revisions[name] for name in ("poses", "second_3d", "third_3d", "refined", "classes")} == {1}
    (planned,) = [said for said in typed[1] if "--dry-run" in said or re.search(r"would|recompute", said)][:1] or [""]
    assert planned


@pytest.mark.services
def test_it_ends_in_a_report_with_a_section_for_each_part(typed: tuple[Path, list[str]]) -> None:
    page = (typed[0] / "report" / "index.html").read_text(encoding="utf-8")
    titles = ("Two motions", "Two CTFs", "Initial volumes", "3D classes", "Volumes", "Map quality", "When to stop")
    assert [title for title in titles if title not in page] == []
