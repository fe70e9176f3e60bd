"""The life of a session of toy numbers on a virtual machine: what people and the microscope do, noted for the model."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icestream.flow.commands.requests import Branch, Command, Continue, Override, Recompute, Set
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, open_session
from toys.checks import Watcher, compare_end
from toys.model import Wanted, read_rows
from toys.session import arrive, make_toy_session, toy_steps
from virtual.machine import VirtualMachine

REFUSED, DEADLY, BREAKING, HEALING = 4, 6, 9, 14
"""Numbers that a step refuses, that kill its worker, that break it, and that it refuses until the session is healed."""


@dataclass
class Life:
    """One session from its first number to its end."""

    folder: Path
    seed: int = 0
    steps: dict[str, Any] | None = None
    wanted: Wanted = field(default_factory=Wanted)
    commands: dict[int, Command] = field(default_factory=dict)

    def __post_init__(self) -> None:
        refusals: dict[str, Any] = {
            "fail_on": [HEALING],
            "crash_on": [DEADLY],
            "break_on": [REFUSED, BREAKING],
            "heal_file": "session:healed",
        }
        steps = self.steps or toy_steps(1_000_000, **refusals)
        self.session: Session = make_toy_session(self.folder, steps, numbers=[])
        self.machine = VirtualMachine(self.session, seed=self.seed)
        self.watcher = Watcher(self.session)

    def arrive(self, names: list[str]) -> None:
        """Let numbers arrive that have not yet."""
        new = [name for name in names if name not in self.wanted.names]
        arrive(self.folder, new)
        self.wanted.names += new

    def ask(self, command: Command) -> None:
        """Ask for something, if there is a store to ask."""
        if self.session.store_path.is_file() and self._has_tables():
            self.commands[self.machine.ask(command)] = command

    def _has_tables(self) -> bool:
        return self.machine.counts.starts > self.machine.counts.killed_at.get("claimed", 0)

    def heal(self) -> None:
        """Let the step refuse nothing any more; what it refused is tried again when somebody asks."""
        (self.session.folder / "healed").touch()
        self.wanted.healed = True

    def look(self) -> None:
        """Look for what must never be.

        Raises
        ------
        AssertionError
            Naming all of it.
        """
        wrong = self.watcher.look()
        if wrong:
            raise AssertionError("\n".join(wrong))

    def end(self) -> None:
        """End all misfortunes, go on with everything, run to the end, and compare with what must have come out.

        Raises
        ------
        AssertionError
            Naming every difference.
        """
        self.settle()
        before = self._made()
        self.machine.run_out()
        self.look()
        if self._made() != before:
            raise AssertionError(f"another run of a session that had ended did something: {self._made() ^ before}")

    def settle(self) -> None:
        """Go on with everything until nothing is left to do, and compare."""
        self.machine.misfortunes.worker_dies = self.machine.misfortunes.source_dies = 0.0
        self.machine.misfortunes.transient = self.machine.misfortunes.store_away = 0.0
        self.machine.misfortunes.full_until_s = 0.0
        self.machine.kill_in = None
        self.machine.start()
        self.ask(Continue())
        self.machine.run_out()  # it may have been about to end before the last number came
        self.machine.run_out()
        self.look()
        wrong = [*self._replay_commands(), *compare_end(self.session, self.wanted)]
        if wrong:
            raise AssertionError("\n".join(wrong))

    def _made(self) -> set[tuple[str, object]]:
        outcomes = {("outcome", row["seq"]) for row in read_rows(self.session, schema.outcome)}
        return outcomes | {("result", row["key"]) for row in read_rows(self.session, schema.result)}

    def _replay_commands(self) -> list[str]:
        """Note the decisions by hand that were accepted, in order; return what was refused or forgotten without a reason."""
        wrong: list[str] = []
        self.wanted.decided.clear()
        self.wanted.own.clear()
        document = open_session(self.session.folder).document
        params: dict[tuple[str, str], object] = {}
        rows = {row["id"]: row for row in read_rows(self.session, schema.command)}
        for number, command in self.commands.items():
            row = rows.get(number)
            if row is None or row["state"] != "done":
                if not self._may_be_refused(command, (row or {"answer": None})["answer"] or ""):
                    wrong.append(f"{command!r}: {row and row['state']}: {row and row['answer']}")
            elif isinstance(command, Override):
                self._decide(command)
            elif isinstance(command, Recompute):
                self._give_own_params(command)
            elif isinstance(command, Set):
                params |= {(command.step, name): value for name, value in command.params.items()}
            elif isinstance(command, Branch) and command.name not in document.steps:
                wrong.append(f"{command!r}: is not in the document")
        for (step, name), value in params.items():
            if document.steps[step].params.get(name) != value:
                wrong.append(f"{step}: {name} is {document.steps[step].params.get(name)}; {value} was set last")
        edits = len(read_rows(self.session, schema.document))
        asked = sum(row["answer"].startswith("applied: ") for row in rows.values())
        return wrong if edits >= asked else [*wrong, f"{asked} edits were taken up, {edits} are noted"]

    def _may_be_refused(self, command: Command, answer: str) -> bool:
        """Tell whether a refusal is right: of what has not come yet, or of taking back what nobody has decided."""
        if isinstance(command, Recompute):
            unknown = command.lift and (command.step, command.unit) not in self.wanted.own and "nothing to withdraw" in answer
            return (
                unknown
                or "no exposure is called" in answer
                or "was drained: closed by hand" in answer
                or "was drained: reset" in answer
            )
        if not isinstance(command, Override):
            return False
        undecided = (str(command.step), command.unit) not in self.wanted.decided
        nothing = command.verdict == "lift" and undecided and "nothing to withdraw" in answer
        return nothing or "no exposure is called" in answer

    def _decide(self, command: Override) -> None:
        where = (str(command.step), command.unit)
        if command.verdict == "lift":
            self.wanted.decided.pop(where, None)
        else:
            self.wanted.decided[where] = command.verdict == "accept"

    def _give_own_params(self, command: Recompute) -> None:
        if command.lift:
            self.wanted.own.pop((command.step, command.unit), None)
        else:
            self.wanted.own[command.step, command.unit] = dict(command.params)
