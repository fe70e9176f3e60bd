"""The workflow as a graph: the document of each step, and the checked nodes with their links."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from icestream.errors import WorkflowError
from icestream.flow.declaration import FoundProgram, Kind, StepType
from icestream.records import Record, Snapshot
from icestream.units import Gigabyte

RecordType = type[Record]


class StepResources(BaseModel):
    """Resources pinned by hand; what is unset is as the step type declares. They never change what is computed again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cores: int | None = Field(None, ge=1, description="Cores of each call")
    memory_gb: Gigabyte | None = Field(None, gt=0, allow_inf_nan=False, description="Memory of each call")
    gpu_gb: Gigabyte | None = Field(None, ge=0, allow_inf_nan=False, description="Memory on one GPU; 0: run without a GPU")
    gpus: tuple[int, ...] | None = Field(None, min_length=1, description="GPUs that may be used; unset: any")
    max_parallel: int | None = Field(None, ge=1, description="How many calls may run at a time; unset: as many as have room")


class StepSpec(BaseModel):
    """One step of a workflow document."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    use: str = Field(description="Step type")
    inputs: dict[str, str | list[str]] = Field(default_factory=dict, alias="in", description="Port: step, or step.output")
    params: dict[str, Any] = Field(default_factory=dict, description="Parameters; {from: step.field} takes another step's value")
    label: str | None = Field(None, description="What people call this step")
    note: str | None = Field(
        None, max_length=2000, description="What people should know of this step; it is shown with it, and changes no result"
    )
    min_inputs: int | None = Field(
        None, ge=0, description="How many streams of a list input must have an item; unset: as its type says, usually 1"
    )
    after: list[str] = Field(default_factory=list, description="Start nothing until the streams of these steps have closed")
    resources: StepResources = Field(default_factory=StepResources, description="Cores, memory and GPUs, pinned by hand")


@dataclass(frozen=True)
class GraphProblem:
    """What is wrong with a workflow; of a step, and where: ``in.PORT``, ``params.NAME``, ``use``, ``name`` or ``after``."""

    text: str
    step: str | None = None
    field: str | None = None

    def __str__(self) -> str:
        return self.text if self.step is None else f"step {self.step!r}: {self.text}"


class UnsoundWorkflow(WorkflowError):
    """A workflow that cannot run; ``problems`` are all of them."""

    def __init__(self, problems: Sequence[GraphProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class Workflow(BaseModel):
    """A workflow document."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: dict[str, StepSpec]


@dataclass(frozen=True)
class Link:
    """One output of one step: ``out``, ``rejected``, ``assignments``, a filter's port, or ``rejected.<port>``."""

    step: str
    output: str

    def __str__(self) -> str:
        return self.step if self.output == "out" else f"{self.step}.{self.output}"


@dataclass(frozen=True)
class Node:
    """One step of a checked workflow."""

    name: str
    use: str
    type: StepType
    params: dict[str, Any]
    links: dict[str, tuple[Link, ...]]
    values: dict[str, tuple[str, str]] = field(default_factory=dict)
    min_inputs: int = 1
    depth: int = 0
    domain: str = "exposure"
    outputs: dict[str, RecordType] = field(default_factory=dict)
    bound: frozenset[str] = frozenset()  # the ports that take a version of a snapshot
    records: dict[str, RecordType] = field(default_factory=dict)  # what the ports take that take any record
    after: tuple[str, ...] = ()  # start nothing until these streams have closed
    closes: tuple[str, ...] = ()  # the steps that a gate drains when it opens
    resources: StepResources = field(default_factory=StepResources)
    contents: Mapping[str, str | None] = field(default_factory=dict)  # of files that parameters name; see flow.contents
    programs: Mapping[str, FoundProgram] = field(default_factory=dict)  # by name of identity; see workflow.programs
    given: frozenset[str] = frozenset()  # the parameters that the workflow gives; the others are at their defaults

    @cached_property
    def item_links(self) -> dict[str, tuple[Link, ...]]:
        """The inputs that come per unit (not bound snapshots)."""
        return {port: links for port, links in self.links.items() if port not in self.bound}

    @cached_property
    def item_steps(self) -> frozenset[str]:
        """The steps whose outputs come per unit."""
        return frozenset(link.step for links in self.item_links.values() for link in links)

    @cached_property
    def list_ports(self) -> frozenset[str]:
        """The ports that take any number of streams."""
        return frozenset(port.name for port in self.type.ports if port.many)

    @property
    def publishes_versions(self) -> bool:
        """Its output is a snapshot."""
        return self.type.output is not None and issubclass(self.type.output, Snapshot)

    @property
    def publishes_only(self) -> bool:
        """It is a source of versions: it decides about no unit."""
        return self.type.is_source and self.publishes_versions

    @property
    def fed_by_versions(self) -> bool:
        """All its inputs are snapshots: its units are its own runs."""
        return self.domain == f"version:{self.name}"

    def takes_items_of(self, step: str) -> bool:
        """Tell whether an input that comes per unit is from ``step``."""
        return step in self.item_steps


def may_repeat(node: Node) -> bool:
    """Tell whether a result of a step can be computed again from what the store knows of it."""
    return node.type.kind is Kind.MAP and node.domain == "exposure" and not node.type.names_inputs


@dataclass(frozen=True)
class Graph:
    """All nodes, inputs before those that use them."""

    nodes: dict[str, Node]

    def inputs_of(self, name: str) -> set[str]:
        """Return the steps that ``name`` reads."""
        return {link.step for links in self.nodes[name].links.values() for link in links}

    def dependents(self, name: str) -> list[Node]:
        """Return the nodes that read an output of ``name``."""
        return [node for node in self.nodes.values() if name in self.inputs_of(node.name)]

    def followers(self, name: str) -> list[str]:
        """Return the steps that start nothing before the stream of ``name`` has closed."""
        return [node.name for node in self.nodes.values() if name in node.after]

    def descendants(self, name: str) -> set[str]:
        """Return all nodes below ``name``, itself among them."""
        found = {name}
        for node in self.nodes.values():
            if self.inputs_of(node.name) & found:
                found.add(node.name)
        return found

    def from_step(self, name: str) -> list[str]:
        """Return ``name`` and all steps below it, inputs before those that use them."""
        below = self.descendants(name)
        return [step for step in self.nodes if step in below]
