"""The programs that the steps of a workflow run: found and asked for their versions before anything starts."""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from icestream.documents import read_document
from icestream.errors import SessionError, WorkflowError
from icestream.flow.declaration import FoundProgram, Program, ProgramSettings
from icestream.flow.workflow.program_environment import clean_environment

if TYPE_CHECKING:
    from icestream.flow.workflow.graph import Graph, Node

_PROBE_S = 30.0
_MOST_PRINTED = 1 << 16


def read_program_settings(path: Path | None) -> dict[str, ProgramSettings]:
    """Return what the facility's file of programs says, by program; nothing where there is no such file by design.

    Raises
    ------
    SessionError
        The file cannot be read, or says something that is not allowed; every problem is named.
    """
    if path is None:
        return {}
    try:
        document = read_document(path)
    except ValueError as error:
        raise SessionError(f"file of programs {path} (ICESTREAM_PROGRAMS): {error}") from None
    try:
        return TypeAdapter(dict[str, ProgramSettings]).validate_python(document or {})
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']} (got {one['input']!r:.200})" for one in error.errors()
        ]
        raise SessionError(f"file of programs {path} (ICESTREAM_PROGRAMS): {'; '.join(problems)}") from error


def find_program(program: Program, settings: ProgramSettings) -> FoundProgram:
    """Return where a program is and which version it has.

    Raises
    ------
    WorkflowError
        It is not there, does not tell its version, or has one that the step was not tested with.
    """
    environment = clean_environment(settings)
    path = _locate(program, settings, environment["PATH"])
    found = FoundProgram(program.name, path, settings.version or "", settings)
    if not found.version:
        command = (*found.command_in(Path(tempfile.gettempdir())), *program.probe)
        found = replace(found, version=_probe(program, command, _stamps(command), tuple(sorted(environment.items()))))
    if not (settings.allow_untested or program.supports(found.version)):
        raise WorkflowError(
            f"{program.name} ({path}) has version {found.version}, tested versions: {program.supported}; "
            f"`allow_untested: true` in its entry of the file of programs (ICESTREAM_PROGRAMS) runs it all the same"
        )
    return found


def _locate(program: Program, settings: ProgramSettings, searched: str) -> Path:
    """Return where the executable is; of one in a container what it is called there, once what starts the container is found."""
    wanted = settings.launcher[0] if settings.launcher else settings.path or program.name
    where = shutil.which(wanted, path=searched)
    if where is not None:
        return Path(settings.path or program.name) if settings.launcher else Path(where).absolute()
    if settings.launcher:
        raise WorkflowError(
            f"{wanted}, which the file of programs (ICESTREAM_PROGRAMS) wants to start {program.name}, was not found ({searched})"
        )
    if settings.path is not None:
        raise WorkflowError(
            f"{program.name} is not at {settings.path}, where the file of programs (ICESTREAM_PROGRAMS) says, "
            "or cannot be executed"
        )
    raise WorkflowError(
        f"{program.name} was not found in PATH ({searched}); install it, or give its `path` in the file of programs "
        "(setting ICESTREAM_PROGRAMS)"
    )


def _stamps(command: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    """Return the state of the files that a command names, the image of a container too."""
    found = [Path(word).stat() for word in command if word.startswith("/") and Path(word).is_file()]
    return tuple((one.st_ino, one.st_size, one.st_mtime_ns) for one in found)


@lru_cache(maxsize=64)
def _probe(
    program: Program,
    command: tuple[str, ...],
    _stamps: tuple[tuple[int, int, int], ...],
    environment: tuple[tuple[str, str], ...],
) -> str:
    """Ask an executable for its version, once for each state of its file."""
    how = " ".join([program.name, *program.probe])
    where = command[-len(program.probe) - 1]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            timeout=_PROBE_S,
            check=False,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkflowError(f"{how} ({where}) does not report the version of the program: {error}") from error
    printed = done.stdout[:_MOST_PRINTED].decode(errors="replace")
    version = program.read_version(printed)
    if version is None:
        raise WorkflowError(
            f"{how} ({where}) reports no version; it printed {printed.strip()[:200]!r}. "
            "`version` in its entry of the file of programs (ICESTREAM_PROGRAMS) can say it"
        )
    return version


@dataclass(frozen=True)
class Trouble:
    """What is to be told of a program of a step."""

    step: str
    program: str
    text: str


def look_for_programs(graph: "Graph", file: Path | None) -> "list[Trouble]":
    """Let the nodes of a graph know the programs that they run; return a sentence for each that was not found.

    ``file`` is the facility's file of programs. It is read only where a step runs one.
    """
    if not any(node.type.programs for node in graph.nodes.values()):
        return []
    settings = read_program_settings(file)
    missing = []
    for name, node in graph.nodes.items():
        found: dict[str, FoundProgram] = {}
        for program in node.type.programs:
            try:
                found[program.identity_name] = find_program(program, settings.get(program.name, ProgramSettings()))
            except WorkflowError as error:
                missing.append(Trouble(name, program.name, f"step {name!r} ({node.type.name}): {error}"))
        if found:
            graph.nodes[name] = replace(node, programs=found)
    return missing


def require_programs(graph: "Graph", file: Path | None) -> None:
    """Let the nodes of a graph know the programs that they run.

    Raises
    ------
    WorkflowError
        One was not found; every one is named, with where it was looked for.
    """
    missing = look_for_programs(graph, file)
    if missing:
        raise WorkflowError("\n".join(one.text for one in missing))


def program_identity(node: "Node", pinned: Mapping[str, Any] | None) -> dict[str, str]:
    """Return what the programs of a step count for in its results: as its revision knows it (``pinned``), or as they are now."""
    if pinned is not None:
        names = [program.identity_name for program in node.type.programs]
        return {name: pinned[name] for name in names if name in pinned}
    return {name: found.identity for name, found in node.programs.items()}


def tell_other_versions(graph: "Graph", revisions: Mapping[str, Mapping[str, Any]]) -> "list[Trouble]":
    """Return a sentence for each program that is not the one with which a revision, given by its parameters, was begun."""
    return [
        Trouble(
            name,
            found.name,
            f"{name}: {found.name} is {found.identity} now; this revision was begun with {revisions[name][key]} and continues "
            f"without recomputing anything (`icestream restart` begins a new one)",
        )
        for name, node in graph.nodes.items()
        for key, found in node.programs.items()
        if revisions.get(name, {}).get(key, found.identity) != found.identity
    ]
