"""What torch counts as a small model runs, and a SkyReels-V2 that computes all that the stock forward would."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from models.skyreels import backbone
from models.skyreels.forward import condition, forward
from models.wan.blocks import Text, read_text

KERNEL = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def _attention(q: Any, k: Any, v: Any, *arguments: Any, out_val: Any = None, **named: Any) -> int:
    """torch takes the CPU's own attention kernel for free; here it is counted as every other."""
    return int(sdpa_flop_count(q.shape, (*q.shape[:2], *k.shape[2:]), (*q.shape[:2], *v.shape[2:])))  # grouped queries


class Counter(TorchDispatchMode):
    """The total of FLOPs by torch's own formulas. It equals FlopCounterMode's and takes a fraction of the time."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self._known: dict[Any, tuple[Any, bool]] = {}

    def _look_up(self, func: Any) -> tuple[Any, bool]:
        """The formula of an operation, or None, and whether it is made of others that are counted in its place."""
        formula = _attention if func.overloadpacket is KERNEL else flop_registry.get(func.overloadpacket)
        return formula, formula is None and func._can_decompose()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in self._known:
            self._known[func] = self._look_up(func)
        formula, composed = self._known[func]
        if composed:
            with self:
                return func.decompose(*args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        if formula:
            self.total += int(formula(*args, **(kwargs or {}), out_val=out))
        return out


def counted(call: Callable[[], object]) -> int:
    """FLOPs of everything that `call` runs."""
    with Counter() as counter:
        call()
    return counter.total


class _Projected(Sequence[Tensor]):
    """The text's keys or values of every block, projected when a block first asks for them."""

    def __init__(self, project: Callable[[int], Tensor], blocks: int) -> None:
        self.project, self.blocks, self.known = project, blocks, dict[int, Tensor]()

    def __len__(self) -> int:
        return self.blocks

    def __getitem__(self, block: Any) -> Any:
        if block not in self.known:
            self.known[block] = self.project(block)
        return self.known[block]


@contextmanager
def uncounted() -> Iterator[None]:
    with _disable_current_modes():
        yield


def as_stock(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    """Let every forward compute for itself what ours share: text, modulation and the first self-attention.

    The text fills its length; padding, which `fold_padding` would attend to as one token, stays as it is.
    """
    transformer = model.transformer

    def texts(_: Any, embedding: Tensor, depth: Any = None, fold: bool = False) -> Any:
        with uncounted():
            found = read_text(transformer, embedding, depth)
        return replace(found, bias=embedding)  # carried to the forward, which projects it anew

    def modulation(*arguments: Any) -> Any:
        with uncounted():
            return condition(*arguments)

    def anew(embedding: Tensor) -> Text:
        context, blocks = transformer.condition_embedder.text_embedder(embedding), transformer.blocks

        def side(name: str) -> Any:
            def project(i: int) -> Tensor:
                attn = blocks[i].attn2
                out = attn.norm_k(attn.to_k(context)) if name == "to_k" else attn.to_v(context)
                return out.unflatten(2, (attn.heads, -1)).transpose(1, 2)

            return _Projected(project, len(blocks))

        return Text(side("to_k"), side("to_v"), None)

    def run(model_: Any, latents: Tensor, when: Any, text: Text, *rest: Any) -> Tensor:
        condition(transformer, torch.zeros(len(latents)).long(), model.settings.fps, torch.float32)
        assert text.bias is not None
        return forward(model_, latents, when, anew(text.bias), *rest)

    monkeypatch.setattr(backbone, "read_text", texts)
    monkeypatch.setattr(backbone, "condition", modulation)
    monkeypatch.setattr(backbone, "forward", run)
    monkeypatch.setattr(backbone, "opening", lambda *arguments: None)
