"""Transfers that die at every fault point, each in a process of its own: ``python -m transfer.dying FOLDER``.

Starting Python is slow, so one process makes a child for each point. What was there is read by the test.
"""

import os
import sys
from pathlib import Path

from icestream.flow.runner.fault_points import VARIABLE
from icestream.flow.runner.stopping import StopRequests
from icestream.transfer.copying import POINTS
from icestream.transfer.ledger import Ledger
from icestream.transfer.plan import TransferPlan
from icestream.transfer.running import Transfer
from transfer.transferring import CHUNK


def transfer_until_death(folder: Path, point: str) -> None:
    os.environ[VARIABLE] = point
    removes = 0.0 if "unlink" in point else None
    plan = TransferPlan(
        folder / "microscope", folder / "raw", stable_s=0.0, chunk_bytes=CHUNK, remove_after_s=removes, look_every_s=0.01
    )
    Transfer(plan, Ledger(folder / "transfers.db"), StopRequests()).run(once=True)


if __name__ == "__main__":
    for point in POINTS:
        child = os.fork()
        if child == 0:
            transfer_until_death(Path(sys.argv[1]) / point, point)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{point} {os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}\n")
