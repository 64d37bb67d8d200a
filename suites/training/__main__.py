"""Trains the miniature, and says how well a checkpoint of it answers.

    python -m suites.training train --out fixtures/trained.safetensors
    python -m suites.training accuracy DIRECTORY...

Both need torch and transformers, as the environment `cpu` has them, and run in a process of their
own with the engine's import repairs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from fixtures.serving.server import server_environment

PROGRAMS = ("train", "accuracy")
# Threads that wait for each other sleep: spinning, they took six times as long on busy cores.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the programs; its exit code is ours."""
    program, *arguments = sys.argv[1:] if argv is None else argv or [""]
    if program not in PROGRAMS:
        print(f"error: {program!r} is none of {', '.join(PROGRAMS)}", file=sys.stderr)
        return 2
    environment = server_environment(os.environ, ENVIRONMENT)
    command = [sys.executable, "-m", f"suites.training.{program}", *arguments]
    return subprocess.run(command, env=environment).returncode


if __name__ == "__main__":
    raise SystemExit(main())
