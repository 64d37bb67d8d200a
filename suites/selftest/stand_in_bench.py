"""The benchmark's process without vLLM: it speaks its protocol, and misbehaves when it is told to.

    stand_in_bench.py FOLDER BEHAVIOUR[,BEHAVIOUR...] FD

Each block takes the next behaviour, whichever process it comes to; those of STARTS are a start's.
FOLDER receives each process's number (pids), and each block's arguments and prompts (asked). All
but `hangs` leave as soon as vLLM's would: when nobody is there to ask. Standard library only.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

STARTS = ("dies-at-start", "never-ready", "greets-wrongly")
SENT_S = 100.0


def result(count: int) -> dict[str, Any]:
    """Requests half a second apart, each of two chunks and two tokens."""
    return {
        "start_times": [SENT_S + index / 2 for index in range(count)],
        "queue_times": [0.125] * count,
        "ttfts": [0.25] * count,
        "itls": [[0.125]] * count,
        "output_lens": [2] * count,
        "input_lens": [5] * count,
        "errors": [""] * count,
        "median_ttft_ms": 250.0,
    }


def answer(count: int) -> dict[str, Any]:
    known = {
        str(index): {"kind": None, "ended_s": SENT_S + index / 2 + 0.5} for index in range(count)
    }
    return {"result": result(count), "known": known, "printed": "a table"}


def behave(connection: Connection, behaviour: str, count: int) -> None:
    def tell(said: object) -> None:
        connection.send_bytes(json.dumps(said).encode())

    tell({"begun": True})
    for done in range(1, count):
        tell({"done": done})
    if behaviour == "dies":
        print("RuntimeError: half-way", flush=True)
        os._exit(3)
    elif behaviour == "is-killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif behaviour == "hangs":
        time.sleep(600)
    elif behaviour == "stops-inside-a-message":
        os.write(connection.fileno(), b"\0\0\0\x09{")
        time.sleep(600)
    elif behaviour == "has-a-child":  # which holds on to all that it was given
        child = subprocess.Popen(["sleep", "600"], close_fds=False)
        with Path(sys.argv[1], "pids").open("a") as file:
            file.write(f"{child.pid}\n")
        time.sleep(600)
    elif behaviour == "says-no-json":
        connection.send_bytes(b"\xff{")
    elif behaviour == "says-a-number":
        tell(17)
    elif behaviour == "gives-no-result":
        tell({"printed": "nothing else"})
    elif behaviour == "counts-wrongly":
        tell(answer(count + 1))
    elif behaviour == "fails":
        tell({"failed": "ValueError: of\ntwo lines"})
    else:
        tell({"done": count})
        tell(answer(count))


def end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(0)


def main() -> None:
    folder, behaviours = Path(sys.argv[1]), sys.argv[2].split(",")
    threading.Thread(target=end_with_parent, daemon=True).start()
    connection = Connection(int(sys.argv[3]))
    with (folder / "pids").open("a") as file:
        file.write(f"{os.getpid()}\n")

    def taken() -> str:
        """The next behaviour, whichever process took the others; the last one goes on for ever."""
        turn = len(list(folder.glob("turn-*")))
        (folder / f"turn-{turn}").touch()
        return behaviours[min(turn, len(behaviours) - 1)]

    if behaviours[min(len(list(folder.glob("turn-*"))), len(behaviours) - 1)] in STARTS:
        behaviour = taken()
        if behaviour == "dies-at-start":
            print("ImportError: no engine", flush=True)
            os._exit(1)
        if behaviour == "never-ready":
            time.sleep(600)
        connection.send_bytes(json.dumps({"hello": True}).encode())
    connection.send_bytes(json.dumps({"ready": True}).encode())
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        argv = request["argv"]
        asked = Path(argv[argv.index("--dataset-path") + 1]).read_text().splitlines()
        with (folder / "asked").open("a") as file:
            file.write(json.dumps({"argv": argv, "prompts": list(map(json.loads, asked))}) + "\n")
        behave(connection, taken(), len(asked))


if __name__ == "__main__":
    main()
