"""The reference's answers that are known already: where they lie, and what decides them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fixtures.deployment import PlatformSettings
from fixtures.miniature import cache_root
from fixtures.reference import processor
from fixtures.serving.machine import Machine
from fixtures.serving.server import server_environment

ENGINE_VARIABLES: Final = ("VLLM_", "NCCL_", "CUDA_", "NVIDIA_", "OMP_", "TORCHDYNAMO_")


def reference_folder() -> Path:
    """Of every run on this machine."""
    return cache_root() / "references"


def deciding(
    checkpoint: str, engine: object, settings: PlatformSettings, machine: Machine
) -> dict[str, object]:
    """What decides the answers of a reference, beside what it is asked."""
    return {
        "checkpoint": checkpoint,
        "engine": engine,
        "arguments": settings.arguments,
        "environment": _deciding_environment(settings.environment),
        "cpu": machine.cpu,
        "cores": machine.cores,
        "processor": processor(),
        "gpus": [gpu.name for gpu in machine.gpus],
        "versions": machine.versions,
    }


def _deciding_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a server's environment says about the engine: the caller's settings reach it too, and
    whatever deployments.toml sets was set for a reason."""
    given = server_environment(os.environ, environment)
    return {
        name: value
        for name, value in given.items()
        if name.startswith(ENGINE_VARIABLES) or name in environment
    }
