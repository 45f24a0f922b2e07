"""The environment of a measurement: versions, hardware, precision switches, code."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "diffusers", "transformers", "lpips", "torchmetrics", "av", "cache-dit")


@cache
def environment(device: torch.device) -> dict[str, Any]:
    """Software, hardware and determinism switches of this process, as stored in run.json."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": device.type,
        "gpu": "",
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": {name: getattr(torch.backends.cudnn, name) for name in ("deterministic", "benchmark", "allow_tf32")},
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "attention": attention_backends(),
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu_memory": properties.total_memory, "cuda": torch.version.cuda}
        found |= _asked(f"GPU-{properties.uuid}")
    return found


def attention_backends() -> list[str]:
    """The enabled kernels of torch's scaled_dot_product_attention, fastest first."""
    return [
        name
        for name in ("cudnn", "flash", "mem_efficient", "math")
        if getattr(torch.backends.cuda, f"{name}_sdp_enabled")()
    ]


def _asked(uuid: str) -> dict[str, str]:
    """Driver version, clocks (MHz) and power limit (W) of a GPU from nvidia-smi; "" if nvidia-smi fails."""
    wanted = {
        "driver": "driver_version",
        "clock": "clocks.sm",
        "clock_max": "clocks.max.sm",
        "clock_memory": "clocks.mem",
        "power_limit": "power.limit",
    }
    command = ["nvidia-smi", "-i", uuid, f"--query-gpu={','.join(wanted.values())}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return dict.fromkeys(wanted, "")
    values = [value.strip() for value in done.stdout.split(",")] if done.returncode == 0 else []
    return dict(zip(wanted, values, strict=True)) if len(values) == len(wanted) else dict.fromkeys(wanted, "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, timeout=20, env={**os.environ, "LC_ALL": "C"}
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
