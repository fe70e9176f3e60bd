"""The ledger's file: what a killed process held is free at once, and no content of the file can harm a runner."""

import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from icestream.errors import LedgerError
from icestream.flow.resources import ledger as ledger_module
from icestream.flow.resources.ledger import SLOTS, Entry, Ledger, Slots, decode_entry, default_ledger, encode_entry, read_ledger

HOLD = """
import sys, time
from pathlib import Path
from icestream.flow.resources.ledger import Entry, Ledger
ledger = Ledger(Path(sys.argv[1]))
ledger.exchange(lambda slot, others: Entry(pid=1, held={"cores": 3.0}))
print("held", flush=True)
time.sleep(600)
"""


def hold(cores: float, seen: list[Slots] | None = None) -> Callable[[int, Slots], Entry]:
    def change(_slot: int, others: Slots) -> Entry:
        if seen is not None:
            seen.append(others)
        return Entry(pid=os.getpid(), held={"cores": cores})

    return change


def others_of(ledger: Ledger) -> list[float]:
    seen: list[Slots] = []
    ledger.exchange(hold(1.0, seen))
    return [entry.held["cores"] for entry in seen[0].values()]


def test_every_runner_sees_what_the_others_hold(tmp_path: Path) -> None:
    first, second = Ledger(tmp_path / "ledger"), Ledger(tmp_path / "ledger")
    first.exchange(hold(2.0))
    assert others_of(second) == [2.0]
    assert others_of(first) == [1.0]
    second.close()
    assert others_of(first) == []
    first.close()


def test_what_a_killed_process_held_is_free_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "ledger")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    mine = Ledger(tmp_path / "ledger")
    assert others_of(mine) == [3.0]
    process.kill()
    process.wait()
    process.stdout.close()
    assert others_of(mine) == []
    mine.close()


def test_a_process_stopped_inside_the_ledger_holds_nobody_up_for_long(tmp_path: Path) -> None:
    code = HOLD.replace("print(", "kept = ledger._mutex(); kept.__enter__(); print(")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "ledger")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    process.send_signal(signal.SIGSTOP)
    mine = Ledger(tmp_path / "ledger")
    with pytest.raises(LedgerError, match="kept it locked"):
        mine.exchange(hold(1.0))
    process.kill()
    process.wait()
    process.stdout.close()
    assert others_of(mine) == []
    mine.close()


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\xff" * 4096 * (SLOTS + 1),
        b"[" * 4096 * (SLOTS + 1),
        b"00000000{}\n" * 100000,
    ],
)
def test_a_file_full_of_junk_is_no_hindrance(junk: bytes, tmp_path: Path) -> None:
    (tmp_path / "ledger").write_bytes(junk)
    mine = Ledger(tmp_path / "ledger")
    assert others_of(mine) == []
    assert mine.damaged == []
    mine.close()


def test_a_living_runner_with_a_damaged_record_is_reported(tmp_path: Path) -> None:
    first, second = Ledger(tmp_path / "ledger"), Ledger(tmp_path / "ledger")
    first.exchange(hold(2.0))
    with (tmp_path / "ledger").open("r+b") as file:
        file.seek(4096)
        file.write(b"nonsense")
    assert others_of(second) == []
    assert second.damaged == [0]
    assert read_ledger(tmp_path / "ledger")[1] == [0]
    first.exchange(hold(2.0))
    assert others_of(second) == [2.0]
    assert second.damaged == []
    first.close()
    second.close()


@pytest.mark.parametrize("held", ['{"cores": -1}', '{"cores": 1e400}', '{"cores": NaN}', '{"cores": "x"}', "[1]", "[" * 3000])
def test_amounts_that_are_none_are_refused(held: str) -> None:
    text = f'{{"pid": 1, "held": {held}}}'.encode()
    content = b"%08x" % zlib.crc32(text) + text + b"\n"
    assert decode_entry(content) is None


def test_a_record_survives_its_slot_also_when_it_is_long() -> None:
    entry = Entry(pid=1, session="/s" * 3000, steps={f"step_{n}": n for n in range(2000)}, held={"cores": 2.0})
    content = encode_entry(entry)
    assert len(content) == 4096
    found = decode_entry(content)
    assert found is not None
    assert found.held == {"cores": 2.0}


def test_a_ledger_that_was_removed_is_made_again_by_all(tmp_path: Path) -> None:
    first, second = Ledger(tmp_path / "ledger"), Ledger(tmp_path / "ledger")
    first.exchange(hold(2.0))
    second.exchange(hold(1.0))
    (tmp_path / "ledger").unlink()
    first.exchange(hold(2.0))
    assert others_of(second) == [2.0]
    first.close()
    second.close()


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "device"])
def test_only_a_regular_file_is_a_ledger(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "other").touch()
        path.symlink_to(tmp_path / "other")
    else:
        path = Path("/dev/null")
    with pytest.raises(LedgerError):
        Ledger(path).exchange(hold(1.0))


def test_the_ledger_of_a_user_lies_in_a_folder_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(os.getuid()) in str(default_ledger())
    monkeypatch.setattr(ledger_module, "default_ledger", lambda: tmp_path / "mine" / "ledger")
    ledger = Ledger()
    ledger.exchange(hold(1.0))
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "mine" / "ledger").stat().st_mode & 0o777 == 0o600
    ledger.close()
    (tmp_path / "mine").chmod(0o777)
    with pytest.raises(LedgerError, match="belongs to this user alone"):
        Ledger().exchange(hold(1.0))


def test_when_every_slot_is_taken_the_next_runner_is_told(tmp_path: Path) -> None:
    ledgers = [Ledger(tmp_path / "ledger") for _ in range(SLOTS)]
    for ledger in ledgers:
        ledger.exchange(hold(1.0))
    with pytest.raises(LedgerError, match="slots are taken"):
        Ledger(tmp_path / "ledger").exchange(hold(1.0))
    for ledger in ledgers:
        ledger.close()


def test_the_lock_does_not_reach_the_programs_that_a_process_starts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.exchange(hold(1.0))
    child = subprocess.Popen([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    ledger.close()
    try:
        deadline = time.monotonic() + 20
        while read_ledger(tmp_path / "ledger")[0] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert read_ledger(tmp_path / "ledger") == ({}, [])
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_there_is_nothing_to_read_where_there_is_no_ledger(tmp_path: Path) -> None:
    assert read_ledger(tmp_path / "none") == ({}, [])


def test_all_live_slots_are_found_whatever_the_gaps(tmp_path: Path) -> None:
    ledgers = [Ledger(tmp_path / "ledger") for _ in range(40)]
    for ledger in ledgers:
        ledger.exchange(hold(1.0))
    for index in (0, 3, 4, 17, 38):
        ledgers[index].close()
    kept = [index for index in range(40) if index not in (0, 3, 4, 17, 38)]
    assert sorted(read_ledger(tmp_path / "ledger")[0]) == kept
    newcomer = Ledger(tmp_path / "ledger")
    newcomer.exchange(hold(1.0))
    assert newcomer.slot == 0
    for ledger in [*ledgers, newcomer]:
        ledger.close()
