"""From a new acquisition folder to the session that processes it."""

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icestream.errors import SessionError, WorkflowError
from icestream.facility.folders import VALUES_FILE, collect_values, folder_placeholder, read_values_file, session_name
from icestream.facility.watch_decisions import WatchState
from icestream.flow.storage import DOCUMENT, SessionDocument, open_session
from icestream.workflows import Template, fill_template, foresee, load_template, read_values

_MOST_OF_ONE_NAME = 1000
_TEMPLATE_NAME = re.compile(r"[A-Za-z0-9_-]+")
TEMPLATE_KEY = "template"
"""What `icestream.yaml` in a folder says beside the values: which template is to be used."""


@dataclass(frozen=True)
class WatchPlan:
    """What a watch is to do."""

    root: Path
    pattern: str
    sessions: Path
    template: Template
    folder_as: str
    values: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    """The values as they were typed, for other templates."""
    at_most: int | None = None
    take_existing: bool = False
    look_every_s: float = 5.0
    stop_within_s: float = 30.0
    choices: tuple["Choice", ...] = ()
    """Templates for some of the folders, the first that fits; all others get `template`."""

    def choose(self, name: str, wanted: str | None) -> "Choice":
        """Return the template for a folder and what is given for it; ``wanted`` is the one that the folder itself names.

        Raises
        ------
        WorkflowError
            The folder names no template that is installed.
        """
        usual = Choice(self.template, self.folder_as, self.values, self.settings)
        if wanted is not None:
            return self._named(wanted)
        return next((one for one in self.choices if fnmatch.fnmatch(name, one.pattern)), usual)

    def _named(self, wanted: str) -> "Choice":
        known = next((one for one in self.choices if one.name == wanted), None)
        if known is not None:
            return known
        if not _TEMPLATE_NAME.fullmatch(wanted):  # who writes into the folder does not say what is run on this machine
            raise WorkflowError(
                f"{VALUES_FILE}: template {wanted[:80]!r}: must be the name of a template (`icestream templates`)"
            )
        return make_choice(load_template(wanted), given=self.given, settings=self.settings)


@dataclass(frozen=True)
class Choice:
    """A template, which folders it is for, and the values and parameters that are given for it."""

    template: Template
    folder_as: str
    values: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    pattern: str = "*"
    name: str = ""


def make_choice(
    template: Template,
    *,
    given: Mapping[str, Any],
    settings: Mapping[str, dict[str, Any]],
    pattern: str = "*",
    name: str = "",
    folder_as: str | None = None,
) -> Choice:
    """Return a template with those of the given values and parameters that it has a place for.

    Raises
    ------
    WorkflowError
        A value is not allowed, or it cannot be told which folder holds the data.
    """
    mine = {value: text for value, text in given.items() if value in template.placeholders}
    typed = read_values(template, mine, base=Path.cwd())
    return Choice(
        template,
        folder_placeholder(template, folder_as),
        {value: typed.get(value) for value in mine},
        {step: params for step, params in settings.items() if step in template.steps},
        pattern,
        name,
    )


def plan_session(plan: WatchPlan, state: WatchState, name: str) -> tuple[Path, SessionDocument, Template]:
    """Return where the session of an acquisition folder is to be, what it is to be, and the template it is made from.

    Raises
    ------
    WorkflowError
        Values are missing or not allowed; all problems, one a line.
    SessionError
        There is no free folder for it.
    """
    data = plan.root / name
    said = read_values_file(data)
    wanted = said.pop(TEMPLATE_KEY, None)
    one = plan.choose(name, state.folders[name].template or (None if wanted is None else str(wanted)))
    values = collect_values(data, one.template, folder_as=one.folder_as, given=one.values, said=said)
    chosen = state.folders[name].session
    target = _free_folder(plan, state, name) if chosen is None else Path(chosen)
    document = fill_template(one.template, values, name=target.name, settings=one.settings, base=data)
    foresee(document, folder=target)
    return target, document, one.template


def _free_folder(plan: WatchPlan, state: WatchState, name: str) -> Path:
    """Return a free folder, or that of the session which reads these data already: then what was remembered is lost."""
    wanted, data = session_name(name), str((plan.root / name).resolve())
    claimed = {folder.session for other, folder in state.folders.items() if other != name}
    for number in range(1, _MOST_OF_ONE_NAME):
        target = (plan.sessions / (wanted if number == 1 else f"{wanted}_{number}")).absolute()
        if str(target) in claimed:
            continue
        if not target.exists() or (target.is_dir() and not any(target.iterdir())):
            return target
        if (target / DOCUMENT).exists() and data in open_session(target).roots.values():
            return target
    raise SessionError(f"{plan.sessions / wanted}: already exists, and so do all that are numbered up to {_MOST_OF_ONE_NAME}")
