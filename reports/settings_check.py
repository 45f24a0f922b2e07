"""Conditions for a verdict: whether a line ran at the paper's setting and on enough prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from reports.line import Line
from reports.marks import Kind
from reports.metric import BY_NAME
from reports.records import Study
from reports.video import settings

LEAST_PROMPTS = 5  # fewer do not give a reliable interval
MODEL: dict[str, dict[str, Any]] = {  # from sources.csv; a record must state each of them
    "skyreels": {
        "frames": 257,
        "height": 544,
        "width": 960,
        "guidance": 6.0,
        "steps": 50,
        "ar_step": 5,
        "block": 5,
        "base_frames": 97,
        "overlap": 17,
        "attention": "full",
    },
    "magi": {"frames": 240, "height": 480, "width": 480, "steps": 64, "distill": True, "kv_range": []},
}
MODEL_IF_STATED: dict[str, dict[str, Any]] = {  # older records may not state these
    "skyreels": {
        "architecture.num_layers": 30,
        "architecture.num_attention_heads": 12,
        "architecture.attention_head_dim": 128,
        "architecture.ffn_dim": 8960,
    },
    "magi": {
        "architecture.num_layers": 34,
        "architecture.hidden_size": 3072,
        "architecture.ffn_hidden_size": 12288,
        "window": 4,
        "chunk": 6,
        "kv_capacity": 0,
        "prefix": "",
    },
}
SCOPE: dict[str, Any] = {"max_skip": 5, "decay": 0.75}
SCOPE_IF_STATED: dict[str, Any] = {"predictor": "newton2"}  # Eq. 7
SELECTIVE = {"skyreels"}  # models with idle frames, which selective computation skips; MAGI-1's window has none
BY_DEFINITION = {"speedup", "flops_speedup", "lpips", "ssim", "psnr"}  # the Original against itself
RATIOS = {"speedup", "flops_speedup"}


def by_definition(method: str, name: str) -> bool:
    """Whether a column compares the Original with itself, which is equal by definition and no evidence."""
    return method == "original" and name in BY_DEFINITION


def obstacle(
    study: Study, line: Line, model: str, name: str, taus: tuple[float, float] | None = None, fraction: float = 0.0
) -> str:
    """Why the column `name` of a line cannot be compared with the paper's; empty if it can.

    `model` is "skyreels" or "magi"; `taus` and `fraction` are the published line's thresholds and share of the steps.
    """
    if why := unlike_paper(study, line, model, taus, fraction):
        return why
    kinds = [Kind.ATTENTION] * (name in RATIOS) + [Kind.DEVICES] * (name == "speedup")
    return next((str(mark) for mark in line.marked(*kinds)), too_few_prompts(line, name))


def unlike_paper(
    study: Study, line: Line, model: str, taus: tuple[float, float] | None = None, fraction: float = 0.0
) -> str:
    """How the settings of a line's valid videos differ from the paper's; empty if they do not."""
    for number in line.valid["record"]:
        made_by = settings(study.records[number])
        wrong = [
            *_model(model, made_by.get("model") or {}),
            *_method(model, line.method, made_by.get("method") or {}, taus, fraction),
        ]
        if wrong:
            return ", ".join(wrong)
    return ""


def plan_unlike_paper(plan: Mapping[str, Any], model: str) -> str:
    """How the settings of a dry run differ from the paper's; settings that it does not state are not checked."""
    found = plan.get("settings") or {}
    wanted = {name: value for name, value in MODEL[model].items() if name in found}
    return ", ".join(_unlike(found, wanted, {}))


def too_few_prompts(line: Line, name: str) -> str:
    """A reason if a column has values from fewer prompts than an interval needs; else empty."""
    valid, source = line.valid, BY_NAME[name].source
    count = (valid[valid[source].notna()] if source else valid)["prompt"].nunique()
    return f"{count} prompt{'s' * (count != 1)} where an interval needs {LEAST_PROMPTS}" * (count < LEAST_PROMPTS)


def _model(model: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield from _unlike(found, MODEL[model], MODEL_IF_STATED[model])


def _method(
    model: str, method: str, found: Mapping[str, Any], taus: tuple[float, float] | None, fraction: float
) -> Iterator[str]:
    if fraction:
        yield from _unlike(found, {"fraction": fraction}, {})
    if method != "scope":
        return
    thresholds = dict(zip(("tau_cache", "tau_predict"), taus, strict=True)) if taus else {}
    yield from _unlike(found, SCOPE | thresholds, SCOPE_IF_STATED)
    if model in SELECTIVE and found.get("selective", "none") == "none":
        yield "no selective computation where the paper has it"


def _unlike(found: Mapping[str, Any], wanted: Mapping[str, Any], if_stated: Mapping[str, Any]) -> Iterator[str]:
    for name, value in (*wanted.items(), *if_stated.items()):
        ours: Any = found
        for part in name.split("."):
            ours = ours.get(part) if isinstance(ours, Mapping) else None
        if ours is None and name in if_stated:
            continue
        if ours is None:
            yield f"{name} is not recorded where the paper has {_text(value)}"
        elif not _same(ours, value):
            yield f"{_named(name, ours)} where the paper has {_text(value)}"


def _same(ours: Any, paper: Any) -> bool:
    if isinstance(paper, (bool, str, list)):
        return bool(ours == paper)
    if isinstance(ours, bool) or not isinstance(ours, (int, float)):
        return False
    return math.isclose(ours, paper, rel_tol=1e-6)


def _named(name: str, value: Any) -> str:
    return f"{_text(value)} {name}" if name in ("frames", "steps") else f"{name} {_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return (
        "the full range"
        if value == []
        else "none"
        if value == ""
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
