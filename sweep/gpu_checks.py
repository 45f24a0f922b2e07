"""What the doctor says of the GPUs: driver, CUDA version, kernels for the card, MIG slices, and memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import torch

from sweep.finding import MISSING, OK, WARNING, Finding
from sweep.peaks import CARDS, GB, TIGHT, Memory

Said = Callable[..., str | None]
"""The output of a program; None if it does not exist or fails."""


def gpus(said: Said) -> Iterator[Finding]:
    """The GPUs that torch sees, or the reason why it sees none."""
    driver = (said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or "").splitlines()
    if not torch.cuda.is_available():
        yield _none(driver[0] if driver else "", said)
        return
    cards = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
    yield Finding("GPU", OK, ", ".join(f"{card.name} ({card.total_memory / GB:.0f} GB)" for card in cards))
    yield Finding("driver", OK, driver[0] if driver else "unknown")
    yield from _kernels(cards)
    slices = [card for card in cards if re.search(r"\bMIG\b", card.name)]
    if slices:
        yield Finding(
            "MIG",
            WARNING,
            f"{slices[0].name}: a slice with {slices[0].total_memory / GB:.0f} GB, and torch sees one per process",
            "name a slice for each process, CUDA_VISIBLE_DEVICES=MIG-UUID (nvidia-smi -L lists them); its times are no "
            "whole card's, so no table may compare them with one's",
        )


def _none(driver: str, said: Said) -> Finding:
    """Why torch sees no GPU."""
    if not driver:
        return Finding(
            "GPU", WARNING, "none; the tiny models run on the CPU, the real ones need days per video on a CPU"
        )
    mig = (said("nvidia-smi", "--query-gpu=mig.mode.current", "--format=csv,noheader") or "").strip()
    if mig.startswith("Enabled"):
        return Finding(
            "GPU",
            WARNING,
            f"driver {driver}, MIG is on, but torch sees no slice",
            "create a slice (nvidia-smi mig -cgi ... -C) and name it in CUDA_VISIBLE_DEVICES, or turn MIG off",
        )
    version = re.search(r"CUDA Version: *([\d.]+)", said("nvidia-smi") or "")
    supports = f", which supports CUDA up to {version[1]}" if version else ""
    wants = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built for the CPU only"
    return Finding(
        "GPU",
        WARNING,
        f"driver {driver}{supports}, but torch {torch.__version__} {wants} and sees no GPU",
        "install a torch build with a CUDA version that the driver supports, or a newer driver, or unset "
        "CUDA_VISIBLE_DEVICES",
    )


def _kernels(cards: Sequence[object]) -> Iterator[Finding]:
    """A card that this build of torch has no kernels for."""
    built = [int(arch.split("_")[1].rstrip("af")) for arch in torch.cuda.get_arch_list() if arch.startswith("sm_")]
    for card in cards:
        own = 10 * card.major + card.minor  # type: ignore[attr-defined]
        if built and not any(arch // 10 == own // 10 and arch <= own for arch in built):
            name = card.name  # type: ignore[attr-defined]
            yield Finding(
                "GPU kernels",
                MISSING,
                f"torch has none for {name} (sm_{own}), but for sm_{min(built)} to sm_{max(built)}",
                "install a torch build for this card, or use another card",
            )


def memory_line(wanted: Memory, there: float) -> Finding:
    """Whether a GPU with `there` GB is large enough for a video, and which switch helps where it is not."""
    stages = wanted.stages
    peaks = {"text encoding": stages.encoding, "loading": stages.loading, "decoding": stages.decoding}
    peaks["denoising"] = wanted.denoising
    stage = max(peaks, key=lambda name: peaks[name])
    state = f", {wanted.state / GB:.1f} of them the method's" if wanted.state and wanted.state > 0.05 * GB else ""
    told = ", ".join(f"{name} {peak / GB:.1f}" for name, peak in peaks.items() if peak)
    fits = ", ".join(f"{card} GB: {wanted.fits(card)}" for card in CARDS)
    enough = wanted.fits(there) == "yes"
    return Finding(
        "GPU memory",
        OK if enough else WARNING,
        f"{there:.1f} GB; needed: {wanted.most / GB:.1f} GB for {stage} ({told}{state}; fits {fits})",
        "" if enough else _switch(wanted, stage, there),
    )


def _switch(wanted: Memory, stage: str, there: float) -> str:
    """What makes a video fit."""
    lacking = f"{wanted.most / GB - TIGHT * there:.1f} GB are lacking: "
    helps = {
        "with offload=text": "offload=text encodes the prompts on the CPU",
        "with offload=all": "offload=all encodes on the CPU, and moves the denoiser there while the VAE decodes",
    }
    if (how := wanted.fits(there)) in helps:
        return lacking + helps[how]
    if wanted.state and wanted.denoising - wanted.state <= TIGHT * there * GB and stage == "denoising":
        return lacking + "use a method with less memory (python -m sweep.memory), or a larger GPU"
    return lacking + "use a larger GPU or a smaller model.height and model.width"
