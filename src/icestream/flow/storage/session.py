"""A session on disk: one folder that holds everything and can be moved or copied."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from icestream.documents import read_document
from icestream.errors import SessionError
from icestream.files import SESSION_DOCUMENT, SESSION_FOLDERS, make_folder_for, publish_text
from icestream.flow.storage.location import Location, hide_passwords, is_url, locate_server
from icestream.flow.workflow import Graph, StepSpec, Workflow, build_graph, refuse_impossible
from icestream.records import Acquisition
from icestream.settings import Settings

DOCUMENT = SESSION_DOCUMENT
STORE = "icestream.db"
_ROOT_NAME = re.compile(r"^[a-z][a-z0-9_]*$")


class SessionDocument(BaseModel):
    """What ``session.yaml`` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="What people call the session")
    acquisition: Annotated[Acquisition, AfterValidator(refuse_impossible)] = Field(
        default_factory=Acquisition, description="Values here override those in files"
    )
    roots: dict[str, str] = Field(
        default_factory=dict, description="Named folders of raw data; stored paths are relative to them"
    )
    store: str | None = Field(
        None,
        description="Where the store is, if not in the session folder (which may be on a network file system): a path on a "
        "local disk, or `postgresql://user@host:port/database?schema=name` without a password",
    )
    steps: dict[str, StepSpec] = Field(description="The workflow")


@dataclass(frozen=True)
class Session:
    """An opened session."""

    folder: Path
    document: SessionDocument

    @property
    def store_at(self) -> Location:
        """Where the store is: a file, or a schema on a server."""
        if self.document.store is not None and is_url(self.document.store):
            return locate_server(self.document.store, session=self.document.name, folder=self.folder)
        return self.folder / (self.document.store or STORE)

    @property
    def store_path(self) -> Path:
        """The file of the store.

        Raises
        ------
        SessionError
            The store is on a server.
        """
        location = self.store_at
        if not isinstance(location, Path):
            raise SessionError(f"{self.folder}: its store is not a file but {location}")
        return location

    @property
    def roots(self) -> dict[str, str]:
        """All roots by name, as absolute paths; ``session`` is the session's own folder."""
        given = {name: str((self.folder / path).resolve()) for name, path in self.document.roots.items()}
        return {**given, "session": str(self.folder)}

    def graph(self) -> Graph:
        """Return the checked workflow."""
        return build_graph(Workflow(steps=self.document.steps))


def create_session(folder: Path, document: SessionDocument) -> Session:
    """Write a new session folder after checking its workflow.

    Raises
    ------
    SessionError
        The folder has a session already, is not writable, or cannot have the group and permissions that the settings say.
    WorkflowError
        The workflow cannot run.
    """
    folder = folder.absolute()
    if (folder / DOCUMENT).exists():
        raise SessionError(f"{folder}: already has a session; choose another folder, or run this one")
    _check_roots(document)
    check_roots_apart(folder, document)
    location = Session(folder, document).store_at
    if not isinstance(location, Path):  # with the schema in it, so that a session that is moved finds its store again
        document = document.model_copy(update={"store": str(location)})
    session = Session(folder, document)
    session.graph()
    try:
        settings = Settings()
        mode = None if settings.session_mode is None else int(settings.session_mode, 8)
        make_folder_for(settings.session_group, mode, folder)
        publish_text(folder / DOCUMENT, dump_document(document))
    except OSError as error:
        raise SessionError(f"{folder}: cannot be written: {error}") from error
    return session


def open_session(folder: Path) -> Session:
    """Read a session folder.

    Raises
    ------
    SessionError
        There is no session, or its document cannot be read.
    """
    folder = folder.absolute()
    path = folder / DOCUMENT
    if not path.is_file():
        raise SessionError(f"{folder}: is not a session (it has no {DOCUMENT}); make one with `icestream new`")
    try:
        loaded = read_document(path)
    except ValueError as error:
        raise SessionError(hide_passwords(f"{path}: {error}")) from None
    try:
        if not isinstance(loaded, dict):
            raise SessionError(
                f"{path}: {'is empty' if loaded is None else 'is not a mapping of names to values'}; "
                "a session has `name` and `steps`"
            )
        document = SessionDocument.model_validate(loaded)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, issue['loc']))}: {issue['msg']}"
            + ("" if issue["type"] == "impossible" else f" (got {issue['input']!r:.200})")
            for issue in error.errors()
        ]
        raise SessionError(hide_passwords(f"{path}: " + "; ".join(lines))) from None
    _check_roots(document)
    session = Session(folder, document)
    _ = session.store_at  # refuses a URL that cannot be used, or that holds a password
    return session


def dump_document(document: SessionDocument) -> str:
    """Write a document as YAML, leaving out what is unset."""
    data: dict[str, Any] = document.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)


def _check_roots(document: SessionDocument) -> None:
    for name in document.roots:
        if not _ROOT_NAME.match(name) or name == "session":
            raise SessionError(f"root {name!r}: a root's name is made of a-z, 0-9 and _, and is not 'session'")


def check_roots_apart(folder: Path, document: SessionDocument) -> None:
    """Refuse raw data among what the session itself writes: it would process its own results without end.

    Raises
    ------
    SessionError
        Naming the root.
    """
    home = folder.resolve()
    for name, root in document.roots.items():
        path = (folder / root).resolve()
        if path.is_relative_to(home) and SESSION_FOLDERS.intersection(path.relative_to(home).parts[:1]):
            raise SessionError(f"{name}: {path} is a folder into which the session {home} writes; raw data are read elsewhere")
