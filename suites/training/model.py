"""transformers' own model of the miniature's architecture, in float32: to train, or to judge with.

What it answers is counted by teacher forcing: an answer is right if each of its tokens, the full
stop and the end of the turn are the model's first choice, as greedy decoding would have it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from fixtures.checkpoint.packing import as_float32
from fixtures.checkpoint.stored import FLOATS
from fixtures.checkpoint.tensors import Checkpoint, TensorInfo, read_tensor
from fixtures.checkpoint.weights import Linear
from suites.pictures import SIDE, Picture
from suites.tasks import Task
from suites.training.examples import IMAGE, Batch, Encode, batch

PATCH: Final = 14
GRID: Final = SIDE // PATCH
AT_ONCE: Final = 30
# Modules of transformers' model → of the checkpoint.
_PREFIXES: Final = (("model.visual.", "visual."), ("model.language_model.", "model."))


def checkpoint_name(name: str) -> str:
    """What the checkpoint calls a parameter of transformers' model."""
    for theirs, ours in _PREFIXES:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def blank(config: Mapping[str, Any]) -> Any:
    """The model of a config.json, with random weights."""
    given = {k: v for k, v in config.items() if k not in ("architectures", "quantization_config")}
    made = transformers.Qwen2_5_VLConfig(**given)
    return transformers.Qwen2_5_VLForConditionalGeneration(made).float()


def loaded(checkpoint: Checkpoint) -> Any:
    """The model of a checkpoint, with the weights it stands for."""
    model = blank(json.loads((checkpoint.directory / "config.json").read_bytes()))
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    state = {
        name: torch.from_numpy(_weight(checkpoint, checkpoint_name(name), shape).copy())
        for name, shape in wanted.items()
    }
    model.load_state_dict(state)
    return model.eval()


def _weight(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    info = checkpoint.tensors.get(name)
    if info is not None and info.dtype in FLOATS:
        return as_float32(read_tensor(info))
    module = name.removesuffix(".weight")
    parts: dict[str, TensorInfo] = {
        stored.rpartition(".")[2]: found
        for stored, found in checkpoint.tensors.items()
        if stored.rpartition(".")[0] == module
    }
    scheme = checkpoint.config.quant.scheme((module,))
    return Linear(module, scheme, shape[1], shape[0], parts).weights()


def pixels(pictures: Sequence[Picture]) -> dict[str, torch.Tensor]:
    """What the model takes for pictures, by transformers' own processor."""
    processor = transformers.Qwen2VLImageProcessor(
        min_pixels=SIDE**2, max_pixels=SIDE**2, patch_size=PATCH
    )
    seen = processor(images=list(pictures), return_tensors="pt")
    return {"pixel_values": seen["pixel_values"], "image_grid_thw": seen["image_grid_thw"]}


def answers(model: Any, tokens: NDArray[np.int64], pictures: Sequence[Picture]) -> torch.Tensor:
    """Logits `[n, length, vocabulary]`; all questions of a batch have a picture, or none."""
    ids = torch.from_numpy(tokens)
    given: dict[str, Any] = {}
    if pictures:
        given = pixels(pictures)
        # The same for all: their prompts have the picture in the same place.
        first = ids[:1]
        where, _ = model.model.get_rope_index(
            input_ids=first,
            mm_token_type_ids=(first == IMAGE).int(),
            image_grid_thw=torch.tensor([[1, GRID, GRID]]),
        )
        given["position_ids"] = where.expand(-1, len(ids), -1)
    logits: torch.Tensor = model(input_ids=ids, use_cache=False, **given).logits
    return logits.float()


def losses(model: Any, given: Batch) -> torch.Tensor:
    """Negative log-probability of each token but the first `[n, length - 1]`; nat."""
    found = answers(model, given.tokens, given.pictures)[:, :-1]
    tokens = torch.from_numpy(given.tokens)[:, 1:]
    return torch.nn.functional.cross_entropy(found.transpose(1, 2), tokens, reduction="none")


def right(model: Any, tasks: Sequence[Task], encode: Encode) -> dict[str, bool]:
    """By the task's id."""
    found = {}
    ordered = sorted(tasks, key=lambda task: (task.picture is None, len(task.prompt)))
    for seen in (True, False):
        part = [task for task in ordered if (task.picture is not None) == seen]
        for start in range(0, len(part), AT_ONCE):
            asked = part[start : start + AT_ONCE]
            given = batch(asked, encode)
            with torch.no_grad():
                first = answers(model, given.tokens, given.pictures).argmax(-1).numpy()
            hits = first[:, :-1] == given.tokens[:, 1:]
            judged = given.weights[:, 1:] == 1.0
            for task, hit, judge in zip(asked, hits, judged, strict=True):
                found[task.id] = bool(hit[judge].all())
    return found


def shares(tasks: Sequence[Task], found: Mapping[str, bool]) -> dict[str, float]:
    """The share of right answers, family by family."""
    families = dict.fromkeys(task.family for task in tasks)
    return {
        family: float(np.mean([found[task.id] for task in tasks if task.family == family]))
        for family in families
    }


def perplexity(model: Any, prose: Sequence[str], encode: Encode) -> float:
    """Over the tokens of sentences but their first, and their ends."""
    given = batch((), encode, prose)
    with torch.no_grad():
        lost = losses(model, given).numpy().astype(np.float64)
    return float(np.exp(lost[given.weights[:, 1:] > 0].mean()))


def encoder(directory: Path | None = None) -> Encode:
    """The miniature's tokenizer."""
    from tokenizers import Tokenizer

    from fixtures.tokenizer import tokenizer_files

    files = tokenizer_files()
    text = (directory / "tokenizer.json").read_text() if directory else files["tokenizer.json"]
    tokenizer = Tokenizer.from_str(text)
    return lambda asked: list(tokenizer.encode(asked).ids)
