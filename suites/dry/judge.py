"""What the engine's own code says of a checkpoint, beside what the planner says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.stored import headers
from fixtures.dry import DryEngine, DryVerdict
from fixtures.platforms import Capability, Platform
from fixtures.prediction import CellPlan, plan

# A load that loses rows shows later, in one of these ways: which is the kernels' doing.
LOST: Final = ("warmup", "first_request", "silent")
# What a load without data cannot show: every rank rounds up, all is held, and nothing is in step;
# or all is in step, and the first step divides heads that the load did not.
UNSEEN: Final = ("block_straddles_rank", "linear_keys_divide")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One checkpoint at one size; `known` False where the dry load could not say."""

    known: bool
    agrees: bool
    words: str


def compare(
    engine: DryEngine,
    config: Mapping[str, Any],
    tp: int,
    *,
    platform: Platform = "cpu",
    capability: Capability = (9, 0),
) -> Comparison:
    """Ask both, and say where they differ."""
    model = parse_config(config, source="drawn")
    shared = {tp // model.kv_heads} if tp > model.kv_heads else set()
    dry = engine.ask(config, headers(model), tp, replicas=shared)
    planned = plan(model, tp=tp, platform=platform, capability=capability)
    seen = observed(dry, method=model.quant.method)
    agrees = agree(seen, planned)
    return Comparison(seen != "unknown", agrees, _words(config, tp, seen, dry, planned))


def observed(dry: DryVerdict, *, method: str = "none") -> str:
    """`config` or `load` where it raised, `lost` where rows are, else `whole`; or `unknown`.

    The kernels of symmetric GPTQ read no zeros: losing those loses nothing. An expert's FP8 scale
    that is refined may belong to two ranks: that both hold it is right.
    """
    if dry.raised is not None:
        return "unknown" if dry.raised.stage == "oracle" else dry.raised.stage
    kinds = {
        finding.kind
        for finding in dry.dropped
        if not (method == "gptq" and "qzeros" in finding.message)
        and not (method == "fp8" and ".experts." in finding.tensor and "scale" in finding.message)
    }
    if not kinds:
        return "whole"
    return "unknown" if kinds == {"fault"} else "lost"


def agree(seen: str, planned: CellPlan) -> bool:
    """Do the two say the same, as far as a load without data can tell?"""
    failure = planned.failure_class
    if seen == "lost":
        # A rank without one group has scales of no rows, which the kernel's own preparation of the
        # weights refuses: still at load, and after what a load without data can show.
        # So do words that a rank cannot fill.
        bare = any(
            o.rule == "packed_word_straddles_rank"
            or (o.rule.startswith("group") and o.size <= o.granule)
            for o in planned.obstacles
        )
        return failure in LOST or (failure == "load" and bare)
    if seen == "whole":
        return planned.serves or all(
            obstacle.failure_class in LOST and obstacle.rule in UNSEEN
            for obstacle in planned.obstacles
        )
    return seen == "unknown" or failure == seen


def _words(
    config: Mapping[str, Any], tp: int, seen: str, dry: DryVerdict, planned: CellPlan
) -> str:
    said = dry.raised.message if dry.raised else "; ".join(f.message for f in dry.dropped[:3])
    found = "; ".join(f"{o.rule} ({o.failure_class}): {o.message}" for o in planned.obstacles)
    return (
        f"{config['architectures'][0]} at tp={tp}: the engine's own code ends in {seen!r} "
        f"({said or 'nothing to object to'}); planned: {planned.failure_class} "
        f"({found or 'no obstacle'})"
    )
