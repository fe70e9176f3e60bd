"""``icestream resources``: what the machine has, and which session holds how much of it."""

from collections.abc import Mapping
from pathlib import Path

import typer

from icestream.cli.console import make_table, output, print_json


def resources(json: bool = typer.Option(False, "--json", help="Print JSON for another program.")) -> None:
    """Show the cores, memory and GPUs of this machine, which sessions hold them, and what is free.

    ```
    icestream resources
    icestream resources --json | jq .free
    ```
    """
    from icestream.cli.run import make_settings
    from icestream.flow.resources.capacity import machine_capacity, machine_for
    from icestream.flow.resources.ledger import default_ledger, read_ledger

    settings = make_settings(cores=None, newest_first=False)
    machine = machine_capacity(machine_for(settings))
    path = None if settings.ledger == "" else Path(settings.ledger) if settings.ledger else default_ledger()
    slots, damaged = read_ledger(path) if path is not None else ({}, [])
    taken = {name: sum(entry.held.get(name, 0.0) for entry in slots.values()) for name in machine}
    free = {name: max(0.0, amount - taken[name]) for name, amount in machine.items()}
    if json:
        holders = [entry.model_dump() for entry in slots.values()]
        print_json({"ledger": path, "machine": machine, "free": free, "holders": holders, "damaged_slots": damaged})
        return
    console = output()
    shown = [name for name in machine if name != "gpu_gb"]
    table = make_table("", *(_heading(name) for name in shown), "steps", right=tuple(_heading(name) for name in shown))
    table.add_row("this machine", *_amounts(machine, shown), "")
    for entry in slots.values():
        steps = ", ".join(f"{step} × {count}" for step, count in entry.steps.items())
        table.add_row(f"{entry.session} ({entry.user}, process {entry.pid})", *_amounts(entry.held, shown), steps)
    table.add_row("free", *_amounts(free, shown), "")
    console.print(table)
    for slot in damaged:
        console.print(f"slot {slot} of {path} belongs to a running process, but its record is damaged", markup=False)
    if path is None:
        console.print("there is no ledger (ICESTREAM_LEDGER is empty), so runners do not see each other", markup=False)


def _heading(name: str) -> str:
    return {"cores": "cores", "memory_gb": "memory GB"}.get(name, f"GPU {name.removeprefix('gpu')} GB")


def _amounts(tokens: Mapping[str, float], names: list[str]) -> list[str]:
    return [f"{tokens.get(name, 0.0):.1f}".removesuffix(".0") for name in names]
