"""The first view of a long session: python benchmarks/web_first_view.py [exposures].

The session is virtual work: rows as a runner stores them, of twenty steps with a record of every type. A real `icestream
serve` is started anew each time and asked at once for what a browser asks for first: the page, who asks, the session, its
newest exposures. Prints one JSON line: seconds until all of that was there for the first who asks, and for the next; and the
same for other pages, the map of a grid of 1,600 squares among them, each for the first time and again after one more exposure.
"""

import json
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from icestream.flow.storage.session import DOCUMENT, dump_document
from icestream.microscope.grid import GridSettings, beam_shift_yx, make_grid
from report_cost import VirtualSession
from with_server import Server, serve

FIRST = ("/", "/static/js/main.js", "/api/v1/me", "/api/v1/sessions/long", "/api/v1/sessions/long/exposures?limit=24")
OTHERS = {
    "sessions": "/api/v1/sessions",
    "exposures": "/api/v1/sessions/long/exposures",
    "exposures_by_measure": "/api/v1/sessions/long/exposures?sort=ctf_a:ctf_resolution_angstroms",
    "series": "/api/v1/sessions/long/series",
    "failures": "/api/v1/sessions/long/failures",
    "galleries": "/api/v1/sessions/long/galleries",
    "table_by_name": "/api/v1/sessions/long/exposures?sort=name&text=0042",
    "table_in_range": "/api/v1/sessions/long/exposures?range=ctf_a:ctf_resolution_angstroms,3,4",
    "map": "/api/v1/sessions/long/map",
    "map_of_a_square": "/api/v1/sessions/long/map?square=7",
    "next_holes": "/api/v1/sessions/long/next-holes?limit=12",
}
TIMES = 3
GRID = GridSettings(rows=40, columns=40, visited_per_square=32)


class OnGrid(VirtualSession):
    """A session whose movies say where on the grid they are, as EPU does."""

    grid = make_grid(GRID, seed=1, key=6)

    def text_of(self, step: str, number: int) -> str:
        """Return a record as it is stored; a movie has the place of its hole."""
        text = super().text_of(step, number)
        if step != "movies":
            return text
        truth = self.grid.expose(number)
        shift_y, shift_x = beam_shift_yx(truth)
        place = {"stage_y_um": truth.stage_y_um, "stage_x_um": truth.stage_x_um, "grid_square": str(truth.square)}
        place |= {"foil_hole": str(truth.hole), "beam_shift_y": shift_y, "beam_shift_x": shift_x}
        record = json.loads(text)
        return json.dumps({**record, "metadata": {**(record.get("metadata") or {}), **place}})


def main(exposures: int) -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        session = OnGrid(folder / "sessions" / "long")
        session.add(exposures - session.n)
        session.paper.store.close("written")
        document = dump_document(session.paper.session.document)
        (session.paper.session.folder / DOCUMENT).write_text(document, encoding="utf-8")
        first, again, rss = [], [], 0.0
        others: dict[str, list[float]] = {name: [] for name in OTHERS}
        later: dict[str, list[float]] = {name: [] for name in OTHERS}
        for number in range(TIMES):
            with serve(folder / "sessions", folder / f"state{number}") as server:
                first.append(_take(server, FIRST))
                again.append(_take(server, FIRST))
                for name, path in OTHERS.items():
                    others[name].append(_take(server, (path,)))
                session.add(1)
                for name, path in OTHERS.items():
                    later[name].append(_take(server, (path,)))
                rss = server.rss_mb()
    line = {"benchmark": "web_first_view", "exposures": exposures, "first_view_s": _middle(first), "again_s": _middle(again)}
    measured = {"others_s": others, "after_an_exposure_s": later}
    told = {name: {page: _middle(took) for page, took in found.items()} for name, found in measured.items()}
    print(json.dumps(line | told | {"server_rss_mb": rss}))


def _take(server: Server, paths: tuple[str, ...]) -> float:
    """Ask for several things at once, as a browser does, and return how long all of them took."""

    def read(path: str) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}{path}", headers={"Authorization": f"Bearer {server.tokens[0]}"}
        )
        with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310
            answer.read()

    with ThreadPoolExecutor(len(paths)) as pool:
        began = time.perf_counter()
        list(pool.map(read, paths))
        return time.perf_counter() - began


def _middle(values: list[float]) -> float:
    return round(float(np.median(values)), 3)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
