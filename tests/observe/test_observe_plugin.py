"""A record that a plugin declares shows everywhere, also where the plugin is not installed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from icestream.flow.declaration.registry import find_step
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import Session
from icestream.settings import Settings
from toys.session import TOYS, make_toy_session

PLUGIN = '''"""A plugin: counts the spots on an image."""

from base64 import b64decode
from typing import ClassVar

from icestream.flow import Context, step
from icestream.records import FileRef, Record
from icestream.records.shown import Card, Measure, Number, Panel, Picture, Shown, Text
from icestream.units import Angstrom
from toys.steps import Number as ToyNumber

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


class Spots(Record):
    """The spots on one image."""

    stored_name: ClassVar[str] = "lab.Spots"

    number: int
    widest_ang: Angstrom
    kind: str
    picture: FileRef

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Spots",
            measures=(
                Measure("Spots on an image", "number", metric="spots_per_image", better="low"),
                Measure("Widest spot", "widest_ang", metric="spots_widest_angstroms"),
            ),
            cards=(
                Card(
                    numbers=(Number("Widest", "widest_ang"),),
                    picture=Picture("picture", "Found spots"),
                    texts=(Text("They are {kind:words}."),),
                ),
            ),
        )
    )


@step.map("lab_count_spots", version=1, memory_gb=0.1)
def count_spots(number: ToyNumber, ctx: Context) -> Spots:
    """Count the spots on an image."""
    with ctx.publish(".png") as picture:
        picture.path.write_bytes(b64decode(PIXEL))
    return Spots(number=number.value + 1, widest_ang=2.5 * number.value, kind="far_apart", picture=picture.ref)
'''


@pytest.fixture
def collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Run a session of five exposures with the plugin, and remove the plugin."""
    plugin = tmp_path / "plugin" / "lab_spots.py"
    plugin.parent.mkdir()
    plugin.write_text(PLUGIN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(plugin.parent))
    monkeypatch.setenv("PYTHONPATH", f"{plugin.parent}{os.pathsep}{Path(__file__).parents[1]}")
    steps = {
        "numbers": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 5}},
        "spots": {"use": "lab_spots:count_spots", "in": {"number": "numbers"}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(5))
    assert run_session(session, Settings(cores=2, min_free_gb=0)).finished
    find_step.cache_clear()
    plugin.unlink()
    return session


def look(session: Session, *command: str) -> str:
    """Return what a command says in a process that has never seen the plugin."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"COLUMNS": "300"}
    arguments = [sys.executable, "-m", "icestream", command[0], str(session.folder), *command[1:]]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\N{NO-BREAK SPACE}", " ")


def test_a_record_of_a_plugin_shows_without_the_plugin(collected: Session) -> None:
    status = look(collected, "status")
    assert "spots: Spots on an image 3, Widest spot 5 Å (median of the newest 5)" in status
    measures = json.loads(look(collected, "status", "--json"))["measures"]["spots"]
    assert [one["metric"] for one in measures] == ["spots_per_image", "spots_widest_angstroms"]
    metrics = look(collected, "metrics")
    assert 'icestream_spots_per_image{quantile="0.5",session="session",step="spots"} 3.0' in metrics
    assert "# TYPE icestream_spots_widest_angstroms summary" in metrics
    trace = look(collected, "trace", "4")
    assert "out = lab.Spots" in trace
    assert "shows Spots on an image 5, Widest spot 10 Å" in trace
    assert re.search(r"picture Found spots: session:steps/spots/1/\S+\.png", trace)
    look(collected, "report")
    page = (collected.folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "<h2>Spots " in page
    assert "<h3>Spots on an image</h3>" in page
    assert "<h3>Widest spot</h3>" in page
    assert re.search(r'<img src="data:image/png;base64,[^"]+" alt="Found spots of [0-4]">', page)
    assert "They are far apart." in page


ASK = """
import json, sys
from pathlib import Path
from starlette.testclient import TestClient
from icestream.settings import Settings
from icestream.web.access import AccessFile
from icestream.web.app import make_app
from icestream.web.callers import Callers
from icestream.web.places import find_places
from icestream.web.site import Site

folder = Path(sys.argv[1])
site = Site(find_places(folder), Callers(AccessFile(folder / "none"), "owner", local=True), Settings())
client = TestClient(make_app(site, frozenset()), base_url="http://127.0.0.1")
asked = {name: client.get(f"/api/v1/sessions/{folder.name}/{name}").json() for name in ("exposures", "series", "exposures/4")}
picture = asked["exposures/4"]["steps"][1]["results"][0]["pictures"][0]
shown = client.get(f"/api/v1/sessions/{folder.name}/pictures/{picture['key']}/{picture['field']}")
print(json.dumps(asked | {"picture": shown.headers["content-type"]}))
"""


def test_the_web_application_shows_it_on_every_page(collected: Session) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", ASK, str(collected.folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [one["label"] for one in told["exposures"]["columns"]] == ["Spots on an image", "Widest spot"]
    assert told["exposures"]["rows"][0]["values"].keys() == {"spots:spots_per_image", "spots:spots_widest_angstroms"}
    assert {one["measure"]["id"]: one["median"] for one in told["series"]}["spots:spots_per_image"] == 3
    (result,) = told["exposures/4"]["steps"][1]["results"]
    assert result["numbers"][:2] == [["Spots on an image", 5, ""], ["Widest spot", 10, "Å"]]
    assert (result["texts"], result["pictures"][0]["title"]) == (["They are far apart."], "Found spots")
    assert told["picture"] == "image/png"
