"""Where templates are found: in the package, in plugins, and in the folders of the facility; later places win."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from icestream.account import expand_home
from icestream.documents import LARGEST_BYTES
from icestream.errors import DeclarationError, WorkflowError
from icestream.files import publish_text
from icestream.flow.declaration import import_plugin
from icestream.settings import Settings
from icestream.workflows.implied import imply_template
from icestream.workflows.template import Template, read_template

GROUP = "icestream.templates"
SUFFIX = ".yaml"
_PACKAGE = "icestream.workflows"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}")


@dataclass(frozen=True)
class FoundTemplate:
    """A template by name, where it was found, and the places whose template of the same name it replaces."""

    name: str
    origin: str
    text: str
    replaces: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def summary(self) -> str:
        """The first comment line, or what is wrong with it."""
        return self.problem or self.text.partition("\n")[0].lstrip("# ")

    def checked(self) -> "FoundTemplate":
        """Return it with what is wrong with its text."""
        try:
            self.load()
        except WorkflowError as error:
            return replace(self, problem=self.problem or f"cannot be used: {error}")
        return self

    def load(self) -> Template:
        """Read the template.

        Raises
        ------
        WorkflowError
            It cannot be read, or is none.
        """
        if self.problem is not None:
            raise WorkflowError(f"template {self.name!r} of {self.origin}: {self.problem}")
        return with_placeholders(read_template(self.text, origin=self.name))


def list_templates(folders: str | None = None) -> dict[str, FoundTemplate]:
    """Return all templates by name; ``folders`` replaces those of the settings."""
    found: dict[str, FoundTemplate] = {}
    chosen = Settings().template_folders if folders is None else tuple(filter(None, folders.split(os.pathsep)))
    for one in (*_in_package(), *_in_plugins(), *_in_folders(chosen)):
        earlier = found.get(one.name)
        replaces = () if earlier is None else (*earlier.replaces, earlier.origin)
        found[one.name] = FoundTemplate(one.name, one.origin, one.text, replaces, one.problem)
    return dict(sorted(found.items()))


def missing_folders() -> list[str]:
    """Return the folders of templates that the settings name and that are not there."""
    return [folder for folder in filter(None, Settings().templates.split(os.pathsep)) if not expand_home(folder).is_dir()]


def save_template(name: str, text: str, *, replace_own: bool = False) -> Path:
    """Publish a template in the last folder of the settings, and return its file.

    With ``replace_own`` one of this name in that folder may be replaced; it is kept beside it, as ``NAME.yaml.before``.

    Raises
    ------
    WorkflowError
        The name is none, or is taken by a template that is not in that folder, or the folder cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise WorkflowError("a name of a template has 1 to 80 of a-z, 0-9, '_' and '-', of these a letter or digit first")
    folder = expand_home(Settings().template_folders[-1])
    target = folder / f"{name}{SUFFIX}"
    taken = list_templates().get(name)
    if taken is not None and taken.origin != str(target):
        raise WorkflowError(f"{name!r} is a template of {taken.origin}, which is never replaced from here; choose another name")
    if taken is not None and not replace_own:
        raise WorkflowError(f"{name!r} already exists; choose another name, or say that it is to be replaced")
    if taken is not None and taken.replaces:
        raise WorkflowError(f"{name!r} takes the place of the one of {taken.replaces[-1]}; change the file itself")
    read_template(text, origin=name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if taken is not None:
            publish_text(target.with_name(f"{target.name}.before"), taken.text)
        publish_text(target, text)
    except OSError as error:
        raise WorkflowError(f"{target}: cannot be written: {error.strerror}") from None
    return target


def find_template(name_or_path: str) -> FoundTemplate:
    """Return the template of this name, or the one in this file.

    Raises
    ------
    WorkflowError
        There is no such template, or it cannot be read.
    """
    known = list_templates()
    if name_or_path in known:
        return known[name_or_path]
    path = Path(name_or_path)
    if not path.is_file():
        raise WorkflowError(
            f"workflow {name_or_path!r}: no such file, and no template has this name; there are: {', '.join(known)}"
        )
    return _read(path.stem, str(path), path)


def load_template(name_or_path: str) -> Template:
    """Return the template of this name, or the one in this file, ready to be filled.

    Raises
    ------
    WorkflowError
        There is no such template, or it cannot be read, or is none.
    """
    found = find_template(name_or_path)
    if found.problem is not None:
        raise WorkflowError(f"workflow {found.origin}: {found.problem}")
    origin = found.name if found.origin != name_or_path else found.origin
    return with_placeholders(read_template(found.text, origin=origin))


def with_placeholders(template: Template) -> Template:
    """Return a template; one that asks for nothing, and fixes nothing of a session, is asked for what its workflow implies."""
    if template.placeholders or template.acquisition or template.roots:
        return template
    implied = imply_template(template.steps)
    return implied.model_copy(
        update={
            "description": template.description,
            "open_inputs": template.open_inputs,
            "disabled": template.disabled,
        }
    )


def _in_package() -> Iterator[FoundTemplate]:
    for entry in files(_PACKAGE).iterdir():
        if entry.name.endswith(SUFFIX):
            yield _read(entry.name.removesuffix(SUFFIX), "icestream", entry)


def _in_plugins() -> Iterator[FoundTemplate]:
    """Yield the template ``NAME.yaml`` in the package that each entry point names."""
    for entry in entry_points(group=GROUP):
        origin = f"plugin {entry.value}"
        try:
            resource = files(import_plugin(entry.value)) / f"{entry.name}{SUFFIX}"
        except (WorkflowError, DeclarationError, TypeError) as error:
            yield FoundTemplate(entry.name, origin, "", problem=str(error))
            continue
        yield _read(entry.name, origin, resource)


def _in_folders(folders: Sequence[str]) -> Iterator[FoundTemplate]:
    for folder in folders:
        for path in sorted(expand_home(folder).glob(f"*{SUFFIX}")):
            yield _read(path.stem, str(path), path)


def _read(name: str, origin: str, entry: Traversable) -> FoundTemplate:
    try:
        with entry.open("rb") as handle:
            content = handle.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            return FoundTemplate(name, origin, "", problem=f"is larger than {LARGEST_BYTES >> 20} MiB")
        return FoundTemplate(name, origin, content.decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        return FoundTemplate(name, origin, "", problem=f"cannot be read: {error}")
