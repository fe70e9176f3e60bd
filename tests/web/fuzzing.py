"""Schemathesis on the interface: a real server on sessions on paper, asked at random by what its OpenAPI document says.

Names of sessions, steps and exposures that there are stand in the document that it is given, beside those of any kind: otherwise
nearly every question would end at a name that is none.
"""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import uvicorn
from paper_acquisition import write_acquisition
from paper_every_record import write_every_record
from paper_session import HOSTILE

from icestream.errors import SessionError
from icestream.flow.storage.session import DOCUMENT, dump_document
from toys.session import make_toy_session, toy_steps
from web.parts import Served, serve_folder

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance"
)
ENDLESS = r"/events$"
"""Streams of events never end; they have tests of their own."""


@dataclass(frozen=True)
class Fuzzed:
    """What became of a run."""

    passed: bool
    said: str

    @property
    def n_operations(self) -> int:
        """How many addresses were asked."""
        found = re.search(r"Tested:\s+(\d+)", self.said)
        return 0 if found is None else int(found.group(1))

    @property
    def n_selected(self) -> int:
        """How many addresses there are, without those that never end."""
        found = re.search(r"Selected:\s+(\d+)", self.said)
        return 0 if found is None else int(found.group(1))

    @property
    def n_cases(self) -> int:
        """How many questions were asked."""
        found = re.search(r"(\d+) generated", self.said)
        return 0 if found is None else int(found.group(1))


def write_sessions(folder: Path) -> None:
    """Write sessions that have every type of record, names that are hostile, nothing yet, and a document that cannot be read."""
    for paper in (write_every_record(folder / "every"), write_acquisition(folder / "hostile <b>&'\"", 24, name=HOSTILE)):
        paper.store.close("every stream closed")
        (paper.session.folder / DOCUMENT).write_text(dump_document(paper.session.document), encoding="utf-8")
    (folder / "broken").mkdir()
    (folder / "broken" / DOCUMENT).write_text("name: [", encoding="utf-8")
    (folder / "new").mkdir()
    made = make_toy_session(folder / "new", toy_steps(4), numbers=range(4))
    made.folder.rename(folder / "fresh")


@contextmanager
def serve_in_thread(site: Served) -> Iterator[str]:
    """Serve an application on a free port of this machine; runners that are started are none, and no microscope is simulated."""
    config = uvicorn.Config(site.app, host="127.0.0.1", port=0, log_level="error", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    no_microscope = mock.patch("icestream.web.starting.start_simulation", side_effect=SessionError("there is none here"))
    with mock.patch("icestream.web.starting.start_runner", return_value=1), no_microscope:
        thread.start()
        try:
            while not server.started and thread.is_alive():
                thread.join(timeout=0.05)
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)


def with_real_names(document: dict[str, Any], names: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Return an OpenAPI document in which parameters of these names are often what there is."""
    for methods in document["paths"].values():
        for method in methods.values():
            for parameter in method.get("parameters", ()):
                if parameter["name"] in names:
                    parameter["schema"] = {"anyOf": [{"enum": names[parameter["name"]]}, parameter["schema"]]}
    return document


def fuzz(folder: Path, *, seconds: int, seed: int) -> Fuzzed:
    """Ask the interface at random for a while; ``folder`` is made, and holds the sessions."""
    sessions = folder / "sessions"
    sessions.mkdir(parents=True)
    write_sessions(sessions)
    site = serve_folder(sessions, folder / "access.json", local=False, raw=(folder,))
    token = site.access.add_token("fuzz", "administrate")
    asking = site.client(authorization=f"Bearer {token}")
    document = asking.get("/api/v1/openapi.json").json()
    every = asking.get("/api/v1/sessions/every").json()
    rows = asking.get("/api/v1/sessions/every/exposures").json()["rows"]
    pictures = [row["picture"] for row in rows if row["picture"]]
    names = {
        "session": ["every", "hostile <b>&'\"", "broken", "fresh"],
        "step": [one["step"]["name"] for one in every["steps"]],
        "exposure": [row["unit"] for row in rows] + [row["name"] for row in rows],
        "key": sorted({one["key"] for one in pictures}),
        "field": sorted({one["field"] for one in pictures}),
        "template": ["movies_to_ctf", "movies_to_particles"],
    }
    asked = folder / "openapi.json"
    asked.write_text(json.dumps(with_real_names(document, names)), encoding="utf-8")
    with serve_in_thread(site) as address:
        return _run(asked, address, token, seconds=seconds, seed=seed)


def _run(asked: Path, address: str, token: str, *, seconds: int, seed: int) -> Fuzzed:
    command = [sys.executable, "-m", "schemathesis.cli", "run", str(asked), "--url", address]
    command += ["--header", f"Authorization: Bearer {token}", "--checks", CHECKS, "--exclude-path-regex", ENDLESS]
    command += ["--max-time", str(seconds), "--seed", str(seed), "--request-timeout", "60", "--continue-on-failure"]
    command += ["--suppress-health-check", "all", "--warnings", "off", "--no-color", "--generation-database", "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=asked.parent)
    return Fuzzed(done.returncode == 0, f"{done.stdout}\n{done.stderr}")
