"""An engine that misbehaves when it is told to; no torch. Run as the real one: DESCRIPTOR PARENT."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from multiprocessing.connection import Connection

from workers.engine import die_with_parent
from workers.messages import Ready


def main() -> None:
    descriptor, parent = (int(word) for word in sys.argv[1:])
    die_with_parent(parent)
    connection = Connection(descriptor)
    connection.recv()
    connection.send(Ready(devices={"device": "stub", "pid": os.getpid()}))
    hoard: list[bytearray] = []
    while True:
        word = connection.recv()
        if word == "segfault":
            print("about to fall", file=sys.stderr, flush=True)
            ctypes.string_at(0)
        elif word == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "exit":
            os._exit(3)
        elif word == "hang":
            time.sleep(600)
        elif word == "eat":
            while True:
                hoard.append(bytearray(b"x" * 2**24))
                time.sleep(0.01)
        elif word == "child":
            child = os.fork()
            if child == 0:
                time.sleep(600)
            connection.send(child)
        else:
            connection.send(word)


if __name__ == "__main__":
    main()
