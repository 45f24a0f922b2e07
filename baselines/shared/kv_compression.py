"""Which keys of finished chunks to keep: those that are looked at and not like the others.

    score = share · importance - (1 - share) · redundancy             (FlowCache, after R-KV; per key and head of keys)
    importance   softmax over keys of the queries' scores, mean over queries, the largest within a window of keys
    redundancy   softmax over keys of their mean cosine similarity to all other keys

The sum of all unit keys is formed once, so redundancy costs O(tokens), not O(tokens²). Float32.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 7  # neighbouring keys that are kept for each other's sake


def score(keys: Tensor, queries: Tensor, share: float, window: int = WINDOW) -> Tensor:
    """What every key is worth, (tokens, groups); `keys` (tokens, groups, d), `queries` (n, heads, d).

    `share` in [0, 1]: raising it weighs importance more than novelty.
    """
    return share * importance(keys, queries, window) - (1 - share) * redundancy(keys)


def importance(keys: Tensor, queries: Tensor, window: int = WINDOW) -> Tensor:
    """How much the queries look at every key, (tokens, groups). Heads that share keys look with the sharpest."""
    _, groups, width = keys.shape
    q = queries.float().unflatten(1, (groups, -1))  # (n, groups, heads per group, d)
    looks = torch.einsum("nghd,tgd->ghnt", q, keys.float()) / math.sqrt(width)
    shares = looks.amax(1).softmax(-1).mean(1)  # (groups, tokens)
    return F.max_pool1d(shares, window, stride=1, padding=window // 2).T


def redundancy(keys: Tensor) -> Tensor:
    """How much every key is like all others of its group, (tokens, groups); sums to 1 over tokens."""
    unit = F.normalize(keys.float(), dim=-1)
    alike = ((unit * unit.sum(0)).sum(-1) - 1) / len(keys)  # without itself
    return alike.softmax(0)
