"""What one command costs: time until its files are on the disk, peak memory, bytes written.

The command runs under a small process of its own, this file as a script. A child's peak begins at
the size of the process that started it (Linux keeps it across exec), and pytest's would drown
what `cp` needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_UNIT: Final = 512  # of ru_oublock, whatever the disk's own blocks are


class CommandError(Exception):
    """A command that was to be measured failed."""


@dataclass(frozen=True, slots=True)
class Cost:
    """`peak_bytes` is resident memory, mapped files included; `written_bytes` what it dirtied."""

    wall_s: float
    peak_bytes: int
    written_bytes: int


def run(command: Sequence[str | Path], *, out: Path | None = None, log: Path) -> Cost:
    """Run it in the repository's root; `out` is what it writes, flushed within the time."""
    words = [str(word) for word in command]
    with log.open("w") as sink:
        result = subprocess.run(
            [sys.executable, "-I", "-S", __file__, str(out or ""), *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
        )
    if result.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        raise CommandError(f"`{' '.join(words)}` ended with {result.returncode}:\n{tail}")
    return Cost(**json.loads(result.stdout))


def _flush(out: str) -> None:
    # These files alone: a sync of the whole disk would charge for what others write.
    for path in (Path(out), *Path(out).rglob("*")):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _main(out: str, *command: str) -> int:
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        return 1
    if out:
        _flush(out)
    cost = {
        "wall_s": time.monotonic() - began,
        "peak_bytes": usage.ru_maxrss * 1024,
        "written_bytes": usage.ru_oublock * _UNIT,
    }
    print(json.dumps(cost))
    return 0


if __name__ == "__main__":
    raise SystemExit(_main(*sys.argv[1:]))
