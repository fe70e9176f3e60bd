"""Write docs/benchmarks.md from the results that are kept in benchmarks/results, and keep new ones.

python benchmarks/write_page.py                                      # the page
python benchmarks/write_page.py run engine_latency 60                # run a script with arguments, keep its line, write the page
python benchmarks/write_page.py run ctf_accuracy --as ctf_accuracy_phase --phase --peer 'ASPIRE 0.14.3'
python benchmarks/write_page.py keep engine_scale 50000 < line.json  # keep a line that the script has printed before
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from icestream import __version__
from targets import SCRIPTS, TARGETS, Target

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
HEAD = """<!-- Written by benchmarks/write_page.py from benchmarks/results; changes here are lost. -->

# Benchmarks

Each line is a target, the figure that a script in `benchmarks/` printed, and that of another program in the same run. Nothing
here is a test: figures of time depend on the machine, which each run names.

To run a script, keep its figures and write this page anew, on a machine that does nothing else:

```sh
python benchmarks/write_page.py run engine_latency
```

`python benchmarks/write_page.py keep engine_latency < line.json` keeps a line that was printed before; what follows the name are
the script's arguments, `--as NAME` keeps a second run of a script under another name, `--peer 'RELION 3.1.3'` names the other
program.
"""


def load_results() -> dict[str, dict[str, Any]]:
    """Return what is kept, by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((HERE / "results").glob("*.json"))}


def look_up(output: dict[str, Any], path: str) -> float | None:
    """Return the number at a path such as ``global_px.median``; a part may itself have dots. None if there is none."""
    if path in output:
        return float(output[path]) if isinstance(output[path], int | float) else None
    heads = [path[:place] for place, letter in enumerate(path) if letter == "."]
    head = next((head for head in reversed(heads) if isinstance(output.get(head), dict)), None)
    return None if head is None else look_up(output[head], path[len(head) + 1 :])


def render_page(results: dict[str, dict[str, Any]]) -> str:
    """Return the whole page."""
    parts = [HEAD]
    for part in dict.fromkeys(target.part for target in TARGETS):
        rows = [_row(target, results) for target in TARGETS if target.part == part]
        parts.append(f"## {part}\n\n" + _table(("what", "target", "figure", "peer", "", "run"), rows))
        missed = [target for target in TARGETS if target.part == part and judge(target, results) == "**missed**"]
        if missed:
            parts.append("Missed:\n\n" + "\n".join(f"- {target.what}: {target.tried}" for target in missed) + "\n")
    parts.append(_runs(results))
    waiting = [f"- `{name}`{_absent(name)}" for name in SCRIPTS if not _has_result(name, results)]
    if waiting:
        parts.append("## No result kept yet\n\n" + "\n".join(waiting) + "\n")
    return "\n".join(parts)


def judge(target: Target, results: dict[str, dict[str, Any]]) -> str:
    """Return met, missed, or why it is not known."""
    if target.result not in results:
        return "not yet run"
    value, peer = (_figure(target, results, path) for path in (target.figure, target.peer))
    if value is None or (peer is None and (target.beat_peer or target.of_peer is not None)):
        return "not recorded"
    return "met" if target.is_met(value, peer) else "**missed**"


def _figure(target: Target, results: dict[str, dict[str, Any]], path: str | None) -> float | None:
    return None if path is None or target.result not in results else look_up(results[target.result]["output"], path)


def _row(target: Target, results: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    shown = []
    for path in (target.figure, target.peer):
        value = _figure(target, results, path)
        shown.append("" if value is None else f"{value:g} {target.unit}".strip())
    run = f"[{target.result}](#{target.result})" if target.result in results else ""
    return (target.what, target.allowed(), *shown, judge(target, results), run)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows)) + "\n"


def _runs(results: dict[str, dict[str, Any]]) -> str:
    """Return what was run where, with the whole line."""
    parts = ["## Runs\n"]
    for name, result in results.items():
        versions = ", ".join(f"{program} {version}" for program, version in result["versions"].items())
        peer = f"; peer: {result['peer']}" if result.get("peer") else ""
        note = f"\n\n{result['note']}" if result.get("note") else ""
        line = json.dumps(result["output"], ensure_ascii=False)
        parts.append(
            f"### {name}\n\n`{result['command']}`\n\n{versions}{peer}. {result['machine']}.{note}\n\n```json\n{line}\n```\n"
        )
    return "\n".join(parts)


def _has_result(script: str, results: dict[str, dict[str, Any]]) -> bool:
    return any(result["script"] == script for result in results.values())


def _absent(name: str) -> str:
    return "" if (HERE / f"{name}.py").exists() else " (the script is not in this checkout)"


def keep(name: str, *, script: str, arguments: list[str], peer: str | None, line: str) -> None:
    """Keep the line that a script printed, with what it was made with."""
    result: dict[str, Any] = {
        "script": script,
        "command": " ".join(["python", f"benchmarks/{script}.py", *arguments]),
        "versions": {"icestream": __version__, "Python": platform.python_version(), "numpy": np.__version__},
        "machine": describe_machine(),
        "output": json.loads(line),
    }
    if peer is not None:
        result["peer"] = peer
    path = HERE / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def describe_machine() -> str:
    """Return processor, cores, memory and load, without the name of the machine."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    cores = len(os.sched_getaffinity(0))
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    load = os.getloadavg()[2]
    busy = "idle otherwise" if load <= 1.2 else f"with other work on it (load {load:.0f})"
    return f"{model}, {cores} cores, {memory_gb:.0f} GB, {busy}"


def main(words: list[str]) -> None:
    if words:
        action, script, *rest = words
        if action not in ("run", "keep") or script not in SCRIPTS:
            raise SystemExit(f"{' '.join(words)}: write `run SCRIPT` or `keep SCRIPT`; the scripts are {', '.join(SCRIPTS)}")
        name, peer, arguments = read_options(script, rest)
        if action == "run":
            command = [sys.executable, str(HERE / f"{script}.py"), *arguments]
            text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        else:
            text = sys.stdin.read()
        keep(name, script=script, arguments=arguments, peer=peer, line=text.strip().splitlines()[-1])
    PAGE.write_text(render_page(load_results()), encoding="utf-8")


def read_options(script: str, rest: list[str]) -> tuple[str, str | None, list[str]]:
    """Return the name to keep a result under, the peer, and the arguments for the script."""
    own: dict[str, str | None] = {"--as": script, "--peer": None}
    arguments = []
    words = iter(rest or SCRIPTS[script].split())
    for word in words:
        if word in own:
            own[word] = next(words)
        else:
            arguments.append(word)
    return str(own["--as"]), own["--peer"], arguments


if __name__ == "__main__":
    main(sys.argv[1:])
