"""Trains the miniature on the families of `suites.tasks`, and writes its weights.

First the vision tower alone, under a linear reader of the mean of its tokens that is thrown away
afterwards: a picture costs a tenth of what it costs with the decoder. Then all of it, by AdamW over
fresh questions each step, in bfloat16 where torch thinks fit. The rate is constant, and
falls to zero over the last `--settle` steps; in these, weights are rounded in most steps, as a
four-bit quantizer would, as far as the forward pass sees: so that rounding costs the result little.
Before these, in one step of seven a group of each MLP is missing, so that trimming costs something
and not everything.

`--state FILE` keeps what is needed to go on, and a run that finds it goes on from there. What a
step draws depends on its number only. Sums of many threads differ in their last bits: two runs make
models of the same worth, not of the same bytes.

The file in the repository was made with these defaults, but for its first 500 steps: they asked 28
sums of terms up to 12 and 14 products each, not 36 of terms up to 20 and 6.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from fixtures.miniature import Recipe, config_json
from fixtures.trained import TABLES, USED_TOKENS, write_trained
from suites.pictures import COLOURS, SHAPES
from suites.tasks import Task, image_tasks, sentences, text_tasks
from suites.training.examples import IMAGE_TOKENS, Batch, Encode, batch
from suites.training.model import blank, checkpoint_name, encoder, losses, pixels, right, shares

# A step of training asks by this seed and its number, one of the tower's by this less its number:
# suites ask by seeds below 1000.
FIRST_SEED: Final = 10_000
# How many of each family a step asks: what is hard to learn more often.
TEXTS: Final = {"sum": 36, "product": 6, "successor": 6, "capital": 4, "opposite": 4, "copy": 4}
LONG_TEXTS: Final = {"agreement": 4}
PROSE: Final = 4
PICTURES: Final = {"shape": 8, "count": 6, "colour": 4}
TOWER_PICTURES: Final = {"shape": 50, "count": 40, "colour": 20}
CLASSES: Final = {"shape": SHAPES, "count": ("1", "2", "3", "4"), "colour": tuple(COLOURS)}
SHARES: Final = (0.5, 0.1, 0.4)  # of the short texts, the long ones, the pictures
ROUNDINGS: Final = ("none", "asymmetric", "asymmetric", "symmetric")
WARM_UP: Final = 40
BETAS: Final = (0.9, 0.98)
DECAY: Final = 0.05
GROUP: Final = 128


class RoundedWeights:
    """A linear layer whose forward pass sees weights rounded to four bits, and whose backward pass
    does not."""

    def __init__(self, module: Any) -> None:
        self.module, self.rounding = module, "none"
        module.forward = self.forward

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        weight = self.module.weight
        if self.rounding != "none":
            with torch.no_grad():
                change = _rounded(weight, self.rounding) - weight
            weight = weight + change
        return torch.nn.functional.linear(inputs, weight, self.module.bias)


def _rounded(weight: torch.Tensor, rounding: str) -> torch.Tensor:
    groups = weight.reshape(len(weight), -1, GROUP)
    if rounding == "symmetric":
        scale = groups.abs().amax(-1, keepdim=True) / 7.5
        return ((groups / scale).round().clamp(-8, 7) * scale).reshape(weight.shape)
    low = groups.amin(-1, keepdim=True).clamp(max=0)
    scale = (groups.amax(-1, keepdim=True).clamp(min=0) - low) / 15
    zero = (-low / scale).round()
    values = ((groups / scale).round() + zero).clamp(0, 15)
    return ((values - zero) * scale).reshape(weight.shape)


class MissingGroup:
    """Now and then an MLP does without one of its groups."""

    def __init__(self, module: Any, share: float, chance: random.Random) -> None:
        self.width, self.share, self.chance = module.in_features, share, chance
        module.register_forward_pre_hook(self)

    def __call__(self, module: Any, inputs: tuple[torch.Tensor, ...]) -> Any:
        if not module.training or self.chance.random() >= self.share:
            return None
        first = GROUP * self.chance.randrange(self.width // GROUP)
        kept = torch.ones(self.width)
        kept[first : first + GROUP] = 0
        return (inputs[0] * kept,)


def teach_tower(model: Any, steps: int, rate: float) -> None:
    """The vision tower and its merger learn to tell what pictures are asked about."""
    tower, asked = model.model.visual, _listed(TOWER_PICTURES)
    readers = {
        family: torch.nn.Linear(model.config.text_config.hidden_size, len(classes))
        for family, classes in CLASSES.items()
    }
    parameters = [p for module in (tower, *readers.values()) for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=BETAS, weight_decay=DECAY, fused=True)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / WARM_UP, 1.0)
        tasks = image_tasks(len(asked), FIRST_SEED - step - 1, asked)
        seen = pixels([task.picture for task in tasks if task.picture is not None])
        with torch.autocast("cpu", torch.bfloat16):
            tokens = tower(seen["pixel_values"], grid_thw=seen["image_grid_thw"]).pooler_output
        means = tokens.float().reshape(len(tasks), IMAGE_TOKENS, -1).mean(1)
        loss, told = torch.zeros(()), {}
        for family, classes in CLASSES.items():
            rows = [place for place, task in enumerate(tasks) if task.family == family]
            wanted = torch.tensor([classes.index(tasks[row].answer) for row in rows])
            read = readers[family](means[rows])
            loss = loss + torch.nn.functional.cross_entropy(read, wanted)
            told[family] = round((read.argmax(-1) == wanted).float().mean().item(), 2)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 10 == 0:
            print("tower", step + 1, f"{loss.item():.3f}", told, flush=True)


class Training:
    """A model, its optimizer, and the number of the next step."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.step, self.chance = given, 0, random.Random()
        torch.manual_seed(given.seed)
        self.model = blank(config_json(Recipe(quant="none"))).train()
        self.encode = encoder()
        linears = {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module, torch.nn.Linear) and "language_model.layers" in name
        }
        self.layers = [RoundedWeights(module) for module in linears.values()]
        self.mlps = [
            MissingGroup(module, given.missing, self.chance)
            for name, module in linears.items()
            if name.endswith("down_proj")
        ]
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if checkpoint_name(name) in TABLES:
                    parameter[USED_TOKENS:] = 0
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim == 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": DECAY},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=given.rate,
            betas=BETAS,
            fused=True,
        )
        if given.state and given.state.exists():
            state = torch.load(given.state)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
        else:
            teach_tower(self.model, given.tower_steps, given.rate)
            self.keep()

    def keep(self) -> None:
        """What a later run goes on from."""
        if self.given.state:
            state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            torch.save(state | {"step": self.step}, self.given.state)

    def round(self, rounding: str) -> None:
        for layer in self.layers:
            layer.rounding = rounding

    def advance(self) -> list[float]:
        """One step; the losses of its batches, nat."""
        given = self.given
        self.chance.seed(f"{given.seed}/{self.step}")
        left = given.steps - self.step
        fraction = min((self.step + 1) / WARM_UP, 1.0, left / given.settle)
        for group in self.optimizer.param_groups:
            group["lr"] = given.rate * fraction
        settling = left <= given.settle
        self.round(self.chance.choice(ROUNDINGS) if settling else "none")
        for mlp in self.mlps:
            mlp.share = 0.0 if settling else given.missing
        found = []
        for share, asked in zip(SHARES, self._batches(), strict=True):
            with torch.autocast("cpu", torch.bfloat16):
                each = losses(self.model, asked)
            weights = torch.from_numpy(asked.weights)[:, 1:]
            loss = (each * weights).sum() / weights.sum()
            (loss * share).backward()
            found.append(loss.item())
        self.model.lm_head.weight.grad[USED_TOKENS:] = 0
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return found

    def _batches(self) -> Iterator[Batch]:
        """By length, so that little is padding."""
        seed = FIRST_SEED + self.step
        for asked, prose in ((TEXTS, 0), (LONG_TEXTS, PROSE)):
            tasks = text_tasks(sum(asked.values()), seed, _listed(asked))
            yield batch(tasks, self.encode, sentences(prose, seed))
        pictures = image_tasks(sum(PICTURES.values()), seed, _listed(PICTURES))
        yield batch(pictures, self.encode)

    def report(self, tasks: Sequence[Task], encode: Encode) -> None:
        self.model.eval()
        for rounding in ("none", "asymmetric"):
            self.round(rounding)
            found = shares(tasks, right(self.model, tasks, encode))
            print(rounding, {name: round(share, 2) for name, share in found.items()}, flush=True)
        self.model.train()


def _listed(counts: Mapping[str, int]) -> list[str]:
    return [family for family, count in counts.items() for _ in range(count)]


def weights(model: Any) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """By the checkpoint's names."""
    return {checkpoint_name(name): value.numpy() for name, value in model.state_dict().items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Train, and write the file."""
    parser = argparse.ArgumentParser(prog="python -m suites.training train")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to create")
    parser.add_argument("--tower-steps", type=int, default=250)
    parser.add_argument("--steps", type=int, default=730)
    parser.add_argument("--settle", type=int, default=230, help="steps the rate falls in")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--missing", type=float, default=0.15, help="share of steps that lack one")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--state", type=Path, help="kept every 50 steps, and gone on from")
    given = parser.parse_args(argv)
    if given.out.exists():
        print(f"error: {given.out} exists already; remove it or choose another", file=sys.stderr)
        return 2
    training = Training(given)
    asked = (*text_tasks(210, 1), *image_tasks(120, 1))
    began = time.monotonic()
    while training.step < given.steps:
        found = training.advance()
        if training.step % 10 == 0:
            took = time.monotonic() - began
            print(training.step, f"{took:.0f} s", [f"{loss:.3f}" for loss in found], flush=True)
        if training.step % 50 == 0:
            training.keep()
        if training.step % 100 == 0 or training.step == given.steps:
            training.report(asked, training.encode)
    write_trained(given.out, weights(training.model))
    print(given.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
