"""What AnyFlow-FAR offers to methods, and the advice if a method needs more."""

from __future__ import annotations

SIGNALS = frozenset({"time_projection", "time_embedding", "latent", "patch_embedding"})
SITES = frozenset({"aim", "blocks", "branches", "cross_attention", "guidance", "nested", "partial", "renew", "retrace"})
OFFERS = SITES | SIGNALS


def advice(lacking: str) -> str:
    """What to change if a method needs `lacking`."""
    if lacking == "narrow":
        return "a row is one chunk, and all its frames are active, none can be left out; set method.selective=none"
    if lacking in ("settled", "given"):
        return "finished chunks are never forwarded again: the model itself keeps their keys and values"
    if lacking == "transformer":
        return "the libraries do not support this model's class; use our method of the same name instead"
    if lacking == "kv_capacity":
        return "the model keeps far chunks in compressed form and has no other limit of its keys; set method.capacity=0"
    if lacking == "tokens":
        return "only SkyReels-V2 forwards single tokens; choose a method that decides per chunk, such as flowcache"
    return "choose another method or another signal"
