"""The transformer's layers with every block and branch as a site of a method.

A call may hold more than the chunks in flight: a finished chunk that is computed again, which no method may skip, and
the duplicate of the oldest chunk. The duplicate shares the decision of its chunk but has a history of its own (branch
"<name>+alone"). If all of them are computed, they run in one call, as without a method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.row import Row, Site
from engine.to_device import picked
from engine.visit import Visit

from .attention import Call
from .dit import Layer, Magi1DiT, add
from .schedule import Forward

Run = Callable[[Tensor, Call], Tensor]
BRANCH_SITES = ("attention", "feed_forward")


class SitedBlocks:
    """Runs the layers with a method's sites, for one forward and one guidance branch.

    `twins` is kept between forwards. It holds each (chunk, site) whose duplicate was computed before.
    """

    def __init__(
        self, model: Magi1DiT, visit: Visit, forward: Forward, branch: str, twins: set[tuple[int, Site]]
    ) -> None:
        self.model, self.visit, self.forward, self.branch, self.twins = model, visit, forward, branch, twins

    def __call__(self, hidden: Tensor, call: Call) -> Tensor:
        layers, i = self.model.layers, 0
        while i < len(layers):
            stop = self.visit.stop("blocks", i)
            if stop is None:
                hidden = self._layer(i, hidden, call)
                i += 1
                continue
            span = range(i, stop)

            def run(x: Tensor, part: Call, span: range = span) -> Tensor:
                for j in span:
                    x = layers[j](x, part)
                return x

            pieces = self._at(Site("blocks", span, self.branch), hidden, call, run)
            hidden = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
            i = stop
        return hidden

    def _layer(self, i: int, hidden: Tensor, call: Call) -> Tensor:
        layer = self.model.layers[i]
        assert isinstance(layer, Layer)
        if not self.visit.kinds & set(BRANCH_SITES):
            return layer(hidden, call)
        gates = layer.gates(call)  # a result that a method supplies is multiplied by the present gate
        where = range(i, i + 1)
        mixed = self._at(Site("attention", where, self.branch), hidden, call, layer.mix)
        hidden = add(hidden, layer.gate_attention(mixed, gates[0]))
        inner = self._at(Site("feed_forward", where, self.branch), hidden, call, lambda x, _: layer.mlp(x))
        return add(hidden, layer.gate_mlp(inner, gates[1]))

    def _at(self, site: Site, x: Tensor, call: Call, run: Run) -> list[Tensor]:
        """The result of `x` (members, tokens, width) at `site`; the method decides about the chunks in flight.

        The result is a list of pieces in the order of the members. It is not concatenated, which saves a copy.
        """
        if not self.visit.watches(site):
            return [run(x, call)]
        n = len(self.forward.chunks)
        before = 0 if self.branch == "none" or self.forward.refresh is None else 1
        twin = len(x) > before + n
        done: dict[str, Tensor] = {}

        def compute(window: Tensor, parts: Sequence[Row]) -> Tensor:
            chosen = [c - self.forward.chunks.start for part in parts for c in _chunks(part)]
            members = [*range(before), *(before + j for j in chosen), *([before + n] if twin and 0 in chosen else [])]
            whole = len(members) == len(x)
            out = run(x, call) if whole else run(picked(x, members), call.take(members))
            done["before"], done["twin"] = out[:before], out[before + len(chosen) :]
            if whole:
                done["whole"] = out
            return _to_slots(out[before : before + len(chosen)], self.visit.row.unit)

        flight = self.visit(site, _to_slots(x[before : before + n], self.visit.row.unit), compute)
        pieces = [_to_chunks(flight, self.visit.row.unit)]
        if before:
            pieces.insert(0, done["before"] if "before" in done else run(x[:1], call.take([0])))
        if twin:
            alone = done.get("twin", x[:0])
            pieces.append(self._twin(site, x[before + n :], alone, lambda: run(x[-1:], call.take([before + n]))))
        return [done["whole"]] if "whole" in done else pieces  # "whole": all members were computed in one call

    def _twin(self, site: Site, x: Tensor, computed: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """The result of the duplicate at `site`, by the decision for its chunk; always computed the first time."""
        width, oldest = self.visit.row.unit, self.forward.chunks.start
        unit, key = self.visit.row.only(range(oldest * width, (oldest + 1) * width)), (oldest, site)
        made = _to_slots(computed, width) if len(computed) else None
        make = None if key in self.twins else lambda: _to_slots(compute(), width)
        self.twins.add(key)
        return _to_chunks(self.visit.again(site, unit, _to_slots(x, width), made, make), width)


def _chunks(part: Row) -> range:
    return range(part.slots.start // part.unit, part.slots.stop // part.unit)


def _to_slots(x: Tensor, width: int) -> Tensor:
    """(chunks, tokens, channels) -> (slots, tokens per slot, channels); tokens of a chunk are ordered by time."""
    return x.reshape(len(x) * width, -1, x.shape[-1])


def _to_chunks(x: Tensor, width: int) -> Tensor:
    return x.reshape(len(x) // width, -1, x.shape[-1])
