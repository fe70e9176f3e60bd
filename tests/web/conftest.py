"""Sessions on paper, a real one of an older version, and applications that show them."""

import shutil
from pathlib import Path

import pytest
from paper_acquisition import write_acquisition
from paper_every_record import write_every_record
from paper_session import HOSTILE
from starlette.testclient import TestClient

from icestream.flow.storage.session import DOCUMENT as SESSION_DOCUMENT
from icestream.flow.storage.session import dump_document
from icestream.web.access import AccessFile
from toys.session import make_toy_session, toy_steps
from upgrade.reading import unpack
from web.parts import PASSWORD, Served, serve_folder

OLD = Path(__file__).parents[1] / "upgrade" / "0.1.0" / "session.tar.xz"


@pytest.fixture(scope="session")
def shown_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sessions that tests only look at: every type of record, hostile names, one of 0.1.0, and a broken one."""
    folder = tmp_path_factory.mktemp("sessions")
    for paper in (write_every_record(folder / "every"), write_acquisition(folder / "hostile <b>&'\"", 24, name=HOSTILE)):
        paper.store.close("every stream closed")
        (paper.session.folder / SESSION_DOCUMENT).write_text(dump_document(paper.session.document), encoding="utf-8")
    (folder / "broken").mkdir()
    (folder / "broken" / "session.yaml").write_text("name: [", encoding="utf-8")
    old = unpack(OLD, tmp_path_factory.mktemp("old"))
    shutil.move(old, folder / "old")
    return folder


@pytest.fixture(scope="session")
def open_site(shown_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """The application on this machine alone, where nobody need sign in."""
    return serve_folder(shown_folder, tmp_path_factory.mktemp("access") / "access.json")


@pytest.fixture(scope="session")
def client(open_site: Served) -> TestClient:
    return open_site.client()


@pytest.fixture(scope="session")
def granted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with access for anna, who may act, and for a screen that may look; made once, since hashes of passwords are slow."""
    path = tmp_path_factory.mktemp("granted") / "access.json"
    file = AccessFile(path)
    file.add_password("anna", PASSWORD, "operate")
    file.add_password("screen", PASSWORD, "look")
    return path


@pytest.fixture
def closed_site(shown_folder: Path, granted: Path, tmp_path: Path) -> Served:
    """The application on a network, where people sign in."""
    shutil.copy(granted, tmp_path / "access.json")
    return serve_folder(shown_folder, tmp_path / "access.json", local=False, names=("icestream.lab.org",))


@pytest.fixture
def toy_site(granted: Path, tmp_path: Path) -> Served:
    """An application with one session that has not run yet, and on which tests act."""
    make_toy_session(tmp_path, toy_steps(4), numbers=range(4))
    shutil.copy(granted, tmp_path / "access.json")
    return serve_folder(tmp_path / "session", tmp_path / "access.json", local=False)
