"""What vLLM 0.32.0 decides on CUDA, as far as Python decides it: a hint where there is no GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.dry import DryEngine
from fixtures.miniature import Recipe
from suites.dry.checkpoints import gptq, headers, outcome, text_config, text_headers, vision_config

pytestmark = pytest.mark.dry

ODD, PADDED = Recipe(intermediate_size=896), Recipe(intermediate_size=1024)
MISALIGNED = "The input size is not aligned with the quantized weight shape"


def test_a_padded_checkpoint_loads_whole(hopper: DryEngine) -> None:
    assert hopper.ready["platform"] == "cuda"
    config, tensors = vision_config(PADDED), headers(PADDED)
    verdicts = [hopper.ask(config, tensors, tp) for tp in (1, 2, 4, 8)]
    assert [outcome(verdict) for verdict in verdicts] == ["whole"] * 4


def test_awq_groups_that_straddle_ranks_are_refused(hopper: DryEngine) -> None:
    config, tensors = text_config(ODD), text_headers(ODD)
    for tp in (2, 4, 8):
        raised = hopper.ask(config, tensors, tp).raised
        assert raised is not None
        assert MISALIGNED in raised.message


def test_gptq_groups_that_straddle_ranks_are_accepted_and_lost(hopper: DryEngine) -> None:
    config, tensors = gptq(ODD)
    assert outcome(hopper.ask(config, tensors, 1)) == "whole"
    assert outcome(hopper.ask(config, tensors, 2)) == "dropped,out_of_step"


def test_gptq_that_shares_out_loads_whole(hopper: DryEngine) -> None:
    config, tensors = gptq(replace(ODD, intermediate_size=1024))
    assert outcome(hopper.ask(config, tensors, 4)) == "whole"
