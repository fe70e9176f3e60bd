"""A plugin to begin with: a project that can be built, installed, tested and run as it is."""

import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from icestream import __version__
from icestream.errors import SessionError
from icestream.files import publish_text
from icestream.flow.declaration import PLUGIN_API

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*\Z")

_FILES = {
    "pyproject.toml.txt": "pyproject.toml",
    "readme.md.txt": "README.md",
    "package.py.txt": "src/{package}/__init__.py",
    "record.py.txt": "src/{package}/record.py",
    "step.py.txt": "src/{package}/step.py",
    "test_step.py.txt": "tests/test_{package}.py",
    "workflow.yaml.txt": "example/workflow.yaml",
    "report.yaml.txt": "report/report.yaml",
    "section.html.txt": "report/{package}.html",
}
"""Text of ours → where it goes in the project."""


def make_plugin(name: str, folder: Path) -> list[Path]:
    """Write a new project ``folder/name`` with a step, its record, what is shown of it, a test, docs and a report section.

    Returns
    -------
    paths
        The files, relative to the project.

    Raises
    ------
    SessionError
        The name is no name of a package, or the folder exists already.
    """
    if not _NAME.match(name):
        raise SessionError(
            f"{name!r}: the name of a plugin is lower-case letters and digits, words with hyphens, as my-lab-steps"
        )
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or package == "icestream":
        raise SessionError(f"{name!r}: cannot be the name of a package; choose another one")
    project = folder / name
    if project.exists():
        raise SessionError(f"{project}: exists already; choose another name or folder")
    words = {
        "name": name,
        "package": package,
        "title": package.replace("_", " ").capitalize(),
        "record": "".join(word.capitalize() for word in package.split("_")) + "Contrast",
        "api": PLUGIN_API,
        "version": __version__,
    }
    written = []
    for text, place in _FILES.items():
        path = Path(place.format(package=package))
        target = project / path
        target.parent.mkdir(parents=True, exist_ok=True)
        publish_text(target, Template(files(__package__).joinpath(text).read_text(encoding="utf-8")).substitute(words))
        written.append(path)
    return written
