"""Every method of the menu: settings that leave it nothing to skip, and settings that make it skip on tiny models."""

from dataclasses import dataclass
from typing import Any

from hydra.utils import get_class

from baselines.shared.memory_account import SIZES, Size
from conf.menu import in_full
from engine.method import Method

RATIOS = [1.0, 0.95, 0.97, 0.9, 0.98, 0.93, 0.95, 0.92, 0.97, 0.9, 0.95, 0.9]
SENSITIVE = {"latent": [1.0] * 8, "time": [1.0] * 8}
CAUSAL = {"attention": "block_causal"}


@dataclass(frozen=True)
class Line:
    """`off` and `on` change the YAML; None: the method has no such setting. `refused` is why MAGI-1 cannot serve it.

    `rounding`: switched off it is the Original but for rounding, since it runs another forward.
    """

    off: dict[str, Any] | None
    on: dict[str, Any] | None
    refused: str = ""
    rounding: bool = False
    skyreels: dict[str, Any] | None = None  # settings that it needs of the model there
    magi1: dict[str, Any] | None = None  # other values of `on` there


def _parts(scope: dict[str, Any], cfg: dict[str, Any]) -> dict[str, Any]:
    of = {"scope": "scope.method.Scope", "cfg_cache": "baselines.cfg_cache.CfgCache"}
    scope = {"selective": "none", **scope}
    return {"parts": {n: {"_target_": of[n], **given} for n, given in (("scope", scope), ("cfg_cache", cfg))}}


LIBRARY = "needs transformer, which magi1 does not offer"
MENU = {
    "adacache": Line({"scale": 0}, {}, magi1={"scale": 100.0, "cooldown": 0}),
    "arcache": Line({"threshold": 0}, {"threshold": 9.0}),
    "budget": Line({}, {"computed": [[0, 2, 5, 6]]}),
    "bwcache": Line({"threshold": 0}, {"threshold": 99.0, "reuse": 0.3}),
    "ca2vdm": Line({"prefix_kv": "recompute"}, None, "needs given, narrow"),
    "cfg_cache": Line({"interval": 1}, {"interval": 3}, "needs guidance"),
    "composite": Line(
        _parts({"tau_cache": 0, "tau_predict": 0}, {"interval": 1}),
        _parts({"tau_cache": 0.3, "tau_predict": 0.9}, {"interval": 3}),
        "needs guidance",
    ),
    "delta_dit": Line({"interval": 1}, {}, magi1={"interval": 2}),
    "dicache": Line({"threshold": 0}, {"threshold": 0.1}, magi1={"threshold": 1.0}),
    "dsa": Line(None, None, "needs aim"),  # a head belongs to one model: tests/test_dsa.py
    "dsa_proxy": Line({"threshold": 0}, {"threshold": 9.0}),
    "easycache": Line(
        {"threshold": 0, "warmup": 1},
        {"threshold": 0.3, "warmup": 1},
        magi1={"threshold": 9.0, "warmup": 1, "cooldown": 0},
    ),
    "external_cache_dit": Line(
        {"options": {"Fn_compute_blocks": 1, "residual_diff_threshold": 0.0}},
        {"options": {"Fn_compute_blocks": 1, "max_warmup_steps": 2}},
        LIBRARY,
        rounding=True,
    ),
    "external_diffusers_first_block_cache": Line(
        {"options": {"threshold": -1.0}}, {"options": {"threshold": 0.1}}, LIBRARY, rounding=True
    ),
    "external_diffusers_mag_cache": Line(
        {"options": {"threshold": 0.0, "mag_ratios": RATIOS}},
        {"options": {"threshold": 0.3, "mag_ratios": RATIOS}},
        LIBRARY,
        rounding=True,
    ),
    "external_diffusers_none": Line({}, None, LIBRARY, rounding=True),
    "external_diffusers_pab": Line(
        {"options": {"spatial_attention_block_skip_range": 1}}, {}, LIBRARY, rounding=True, skyreels={"guidance": 1.0}
    ),
    "external_diffusers_sea_cache": Line(
        {"options": {"threshold": 0.0}}, {"options": {"threshold": 0.5}}, LIBRARY, rounding=True
    ),
    "external_diffusers_taylorseer": Line(
        {"options": {"cache_interval": 1, "cache_identifiers": [r"blocks\.\d+\.(attn1|attn2|ffn)"]}},
        {},
        LIBRARY,
        rounding=True,
    ),
    "external_diffusers_taylorseer_lite": Line(
        {"options": {"cache_interval": 1, "use_lite_mode": True}}, {}, LIBRARY, rounding=True
    ),
    "flowcache": Line(
        {"threshold": 0, "function": "stock", "prune": False},
        {"threshold": 0.3, "function": "stock", "warmup": 1},
        skyreels=CAUSAL,
    ),
    "first_block_cache": Line({"threshold": 0}, {"threshold": 0.1}, magi1={"threshold": 1.0}),
    "lossless": Line(None, None, "needs narrow, settled"),
    "magcache": Line({"threshold": 0, "ratios": RATIOS}, {"threshold": 0.3, "ratios": RATIOS}),
    "meancache": Line({}, {"computed": [[0, 2, 5, 6]], "spans": [[1, 1, 1, 1]]}),
    "motioncache": Line(
        {"threshold": 0, "function": "stock", "prune": False},
        {"threshold": 0.3, "fit": "none", "function": "stock", "warmup": 1, "uniform": 0, "floor": 0.0, "least": 0.1},
        "needs tokens, which magi1 does not offer .* only SkyReels-V2 forwards single tokens",
        skyreels=CAUSAL,
    ),
    "original": Line({}, None),
    "original_repeat": Line({}, None),
    "original_seed": Line({}, None),
    "pab": Line({"attention": 1, "cross_attention": 1}, {}),
    "predit": Line({"tolerance": 0}, {"tolerance": 9.0}, magi1={"tolerance": 9.0, "warmup": 2, "cooldown": 0}),
    "ramp": Line({}, {"computed": [[0, 2, 4, 6]]}),  # half of the steps, as in the table of memory
    "reduced_steps": Line({"fraction": 1.0}, None),
    "scope": Line(
        {"tau_cache": 0, "tau_predict": 0, "selective": "none"},
        {"tau_cache": 0.3, "tau_predict": 0.9, "selective": "none"},
    ),
    "sencache": Line(
        {"threshold": 0, "early": 0, **SENSITIVE},
        {"threshold": 1.0, "early": 0.5, **SENSITIVE},
        magi1={"threshold": 9.0, "early": 9.0, **SENSITIVE},
    ),
    "taylorseer": Line({"interval": 1}, {}),
    "teacache": Line({"threshold": 0}, {"threshold": 0.3, "fit": "none", "warmup": 1}),
    "uniform": Line({"interval": 1.0}, {}),
    "xcache": Line({"deviation": 0}, {"floor": -1.0, "slack": 2.0, "deviation": 1e9}),
}


def size_of(model: Any) -> Size:
    """The memory table's description of a small model in float32, from its own settings."""
    s = model.settings
    tokens, latent = s.height // 16 * (s.width // 16), 16 * (s.height // 8) * (s.width // 8) * 4
    if model.name == "magi1":
        width, kinds, unit, twice = s.architecture["hidden_size"], SIZES[1].kinds, s.chunk, s.chunk
        modulation = 2 * width
    else:
        width = s.architecture["num_attention_heads"] * s.architecture["attention_head_dim"]
        kinds, unit, twice, modulation = SIZES[0].kinds, s.block, 0, 6 * width
    signals = {"time_projection": 4 * modulation, "patch_embedding": 4 * tokens * width}
    hidden, guidance = 4 * tokens * width, len(model.branches)
    return Size(model.name, hidden, latent, signals, model.depth, guidance, kinds, unit, tokens, s.steps, twice, 4)


def make(name: str, changes: dict[str, Any]) -> Method:
    """The method `name` of the menu with `changes`."""
    config = in_full("method", name)
    kind = get_class(config.pop("_target_"))
    made = kind(**{**config, **changes})
    assert isinstance(made, Method)
    return made
