"""Which keys of finished chunks to keep: important keys that are not similar to others.

    score = share · importance - (1 - share) · redundancy             (FlowCache, after R-KV; per key and head of keys)
    importance   softmax over keys of the queries' scores, mean over queries, the largest within a window of keys
    redundancy   softmax over keys of their mean cosine similarity to all other keys

The sum of all normalised keys is computed once, so redundancy takes O(tokens), not O(tokens²). All in float32.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 7  # number of adjacent keys that share the largest importance among them


def score(keys: Tensor, queries: Tensor, share: float, window: int = WINDOW) -> Tensor:
    """The score of every key, (tokens, groups), from `keys` (tokens, groups, d) and `queries` (n, heads, d).

    `share` in [0, 1] is the weight of importance; raising it: less weight on redundancy.
    """
    return share * importance(keys, queries, window) - (1 - share) * redundancy(keys)


def importance(keys: Tensor, queries: Tensor, window: int = WINDOW) -> Tensor:
    """The attention of the queries to every key, (tokens, groups). Of heads that share keys, the largest counts."""
    _, groups, width = keys.shape
    q = queries.float().unflatten(1, (groups, -1))  # (n, groups, heads per group, d)
    looks = torch.einsum("nghd,tgd->ghnt", q, keys.float()) / math.sqrt(width)
    shares = looks.amax(1).softmax(-1).mean(1)  # (groups, tokens)
    return torch.nn.functional.max_pool1d(shares, window, stride=1, padding=window // 2).T


def redundancy(keys: Tensor) -> Tensor:
    """The similarity of every key to all others of its group, (tokens, groups); it sums to 1 over tokens."""
    unit = torch.nn.functional.normalize(keys.float(), dim=-1)
    alike = ((unit * unit.sum(0)).sum(-1) - 1) / len(keys)  # without itself
    return alike.softmax(0)
