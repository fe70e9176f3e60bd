"""What can be said of a session before it is made: what its sources would meet in the folders of raw data as they are now."""

from pathlib import Path

from icestream.errors import WorkflowError
from icestream.flow.storage import SessionDocument
from icestream.flow.workflow import Workflow, build_graph

_UNSET_MEANS_NONE = {"pre_exposure_e_per_ang2"}


def foresee(document: SessionDocument, *, folder: Path) -> list[str]:
    """Return what people should know of the raw data of a session that is to be in ``folder``.

    Raises
    ------
    WorkflowError
        Something that is there already would be refused, such as the gain reference; all of it, one a line.
    """
    told, refused = list[str](), list[str]()
    for node in build_graph(Workflow(steps=document.steps)).nodes.values():
        root = document.roots.get(str(node.params.get("root")))
        if node.type.foresee is None or root is None:
            continue
        params = node.type.params.model_validate(node.params)
        for one in node.type.foresee(params, (folder / root).resolve()):
            (refused if one.refused else told).append(one.text)
    if refused:
        raise WorkflowError("\n".join(refused))
    return told


def unset_values(document: SessionDocument) -> dict[str, list[str]]:
    """Return the acquisition values that nobody gave, each with the steps that read it."""
    given = document.acquisition.model_dump(exclude_none=True)
    readers: dict[str, list[str]] = {}
    for node in build_graph(Workflow(steps=document.steps)).nodes.values():
        for value in sorted(node.type.reads - set(given) - _UNSET_MEANS_NONE):
            readers.setdefault(value, []).append(node.name)
    return readers
