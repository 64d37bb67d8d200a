"""How well checkpoints of the miniature answer: transformers, float32, dequantized weights."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from fixtures.checkpoint.tensors import read_checkpoint
from fixtures.errors import ShardproofError
from suites.tasks import image_tasks, sentences, text_tasks
from suites.training.model import encoder, loaded, perplexity, right, shares


def judged(directory: Path, *, texts: int, pictures: int, seed: int) -> dict[str, float]:
    """Shares of right answers by family, over texts and over pictures, and the perplexity."""
    encode, model = encoder(directory), loaded(read_checkpoint(directory))
    found: dict[str, float] = {}
    for kind, tasks in (("text", text_tasks(texts, seed)), ("image", image_tasks(pictures, seed))):
        hits = right(model, tasks, encode)
        found |= shares(tasks, hits) | {kind: sum(hits.values()) / len(hits)}
    return found | {"perplexity": perplexity(model, sentences(100, seed), encode)}


def main(argv: Sequence[str] | None = None) -> int:
    """One line of JSON a checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m suites.training accuracy")
    parser.add_argument("directories", type=Path, nargs="+")
    parser.add_argument("--texts", type=int, default=350)
    parser.add_argument("--pictures", type=int, default=180)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(argv)
    try:
        for directory in given.directories:
            found = judged(directory, texts=given.texts, pictures=given.pictures, seed=given.seed)
            rounded = {name: round(value, 4) for name, value in found.items()}
            print(json.dumps({"checkpoint": str(directory), **rounded}), flush=True)
    except (ShardproofError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
