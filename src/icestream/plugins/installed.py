"""The plugins that are installed here, and what is wrong with each."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from icestream.errors import IcestreamError
from icestream.flow.declaration import STEPS_GROUP, check_plugin_api, find_step, plugin_api_of

_OWN = __package__.partition(".")[0] + "."


@dataclass(frozen=True)
class InstalledPlugin:
    """A distribution with steps.

    Attributes
    ----------
    name, version
        Of the distribution.
    api
        The version of the plugin interface that it was written for; unset: it does not say.
    steps
        Its steps that can be used.
    problems
        Step → why it cannot be used; ``""`` for what is wrong with the whole.
    """

    name: str
    version: str
    api: str | None
    steps: tuple[str, ...]
    problems: dict[str, str]


def list_plugins() -> list[InstalledPlugin]:
    """Return the plugins that are installed, by name; a step of one that fails harms no other."""
    found: dict[tuple[str, str], list[EntryPoint]] = {}
    for entry in entry_points(group=STEPS_GROUP):
        if entry.dist is not None and not entry.value.startswith(_OWN):
            found.setdefault((entry.dist.name, entry.dist.version), []).append(entry)
    return [_look(name, version, entries) for (name, version), entries in sorted(found.items())]


def _look(name: str, version: str, entries: list[EntryPoint]) -> InstalledPlugin:
    api = plugin_api_of(entries[0].dist)
    try:
        check_plugin_api(entries[0])
    except IcestreamError as error:
        return InstalledPlugin(name, version, api, (), {"": str(error)})
    usable, problems = [], {}
    for entry in sorted(entries, key=lambda one: one.name):
        try:
            step_type = find_step(entry.name)
        except IcestreamError as error:
            problems[entry.name] = str(error)
            continue
        if step_type.call.__module__.startswith(_OWN):
            problems[entry.name] = "a step of icestream has this name; give it another one"
        else:
            usable.append(entry.name)
    return InstalledPlugin(name, version, api, tuple(usable), problems)
