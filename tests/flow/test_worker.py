"""The process that runs steps, when the one that gives it work is gone."""

import os
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from typing import Any

from icestream.flow.wire import Message, send


def test_a_worker_whose_runner_died_just_now_ends_without_a_word() -> None:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "icestream.flow.worker", str(os.getpid()), str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as worker:
        theirs.close()
        ours.shutdown(socket.SHUT_RD)  # nobody will hear its answer
        body = {"kind": "watch", "seen": [], "set_aside": [], "roots": {}, "use": "no_such_step", "params": {}}
        connection: Connection[Any, Any] = Connection(ours.detach())  # stays open: the worker is to find out as it answers
        send(connection, Message(body))
        said = worker.communicate(timeout=60)[1]
    connection.close()
    assert (worker.returncode, said) == (1, b"")
