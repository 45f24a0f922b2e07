"""What a method is: a few answers to the denoising loop. The default answers are the Original."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from engine.knob import Knob
from engine.row import Decision, Mode, Row, Site

Probe = Callable[[str], Tensor]  # name of a signal -> (slots, ...) float32, costs no forward


class Capabilities(Protocol):
    """What a method may ask of a backbone before anything is built; engine/backbone.py has the rest."""

    name: str
    settings: Any  # the backbone's dataclass of settings
    depth: int  # transformer blocks
    branches: tuple[str, ...]  # guidance branches of one forward, ("cond",) without guidance
    offers: frozenset[str]  # capabilities and signals, see Method.requires

    def advice(self, lacking: str) -> str:
        """What to change when a method asks for `lacking`."""
        ...

    def schedule(self) -> Sequence[Row]:
        """Every row of the video, as plain data."""
        ...


class Method:
    """The Original pipeline. Accelerators override what they change.

    Subclasses are dataclasses whose fields are the method's parameters; running state is made in `reset`, so that it
    dies whole. `requires` names what the backbone must offer ("blocks", "branches", "cross_attention", "guidance",
    "nested", "partial", "narrow", "settled", "given", "transformer", or a signal).

    "partial": a part of a row can be forwarded without the rest, which a method of grain "unit" asks for. Parts that
    are skipped are then seen through the keys and values of their last computation, in the same guidance branch and
    block. Slots of the row that no part covers, because they wait or are finished, are computed along with the others,
    as in the stock forward, unless `narrow` leaves them out; so where every part is computed the row is the Original's.
    "settled": slots that have settled can be left out of the forward (`Row.exact`); "given": so can those that were
    clean from the start.
    """

    knobs: ClassVar[tuple[Knob, ...]] = ()  # what a calibration turns, the main one first; the others refine it

    @property
    def grain(self) -> str:
        """One decision per "row", or per AR "unit" of it."""
        return "row"

    @property
    def branchwise(self) -> bool:
        """One decision per guidance branch instead of one for all."""
        return False

    @property
    def requires(self) -> frozenset[str]:
        return frozenset()

    def check(self, model: Capabilities) -> None:
        """Refuse a backbone that lacks what this method needs, before anything is built."""
        lacking = sorted(self.requires - model.offers)
        if lacking:
            offered = ", ".join(sorted(model.offers))
            raise ValueError(
                f"{type(self).__name__} needs {', '.join(lacking)}, which {model.name} does not offer (it offers: "
                f"{offered}); {model.advice(lacking[0])}"
            )

    def reschedule(self, settings: Any) -> Any:
        """The backbone settings to run with; only a method that changes the sampler itself returns others."""
        return settings

    def reseed(self, seed: int) -> int:
        """The seed of the noise; only a row that measures the spread between seeds returns another."""
        return seed

    def attached(self, model: Capabilities) -> AbstractContextManager[object]:
        """Held open while one video is denoised: the place to put hooks on the model's modules and take them off."""
        return nullcontext()

    def reset(self) -> None:
        """Forget everything: a video or a segment begins."""

    def narrow(self, row: Row) -> Row:
        """The part of the row worth forwarding (selective computation)."""
        return row

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        """Propose a mode. Called once per part (and branch) of every row, whatever comes of it."""
        return Decision(Mode.RECOMPUTE)

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        """Take note of the mode that is carried out; a row may be forced to recompute."""

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        """Where this method stands in a backbone of `depth` blocks. Spans must not overlap."""
        return ()

    def revise(self, site: Site, part: Row, decision: Decision) -> Decision:
        """The last word at `site`, for a part that `decide` did not leave to be recomputed as a whole.

        Called as the forward arrives there, after what earlier sites kept, so a method may look at its first blocks
        before it decides on the rest, or treat kinds of site differently. One decision for all guidance branches must
        come out alike in each.
        """
        return decision

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        """Remember a fresh result `out` of the input `x` at `site`; copy what is kept of a stream, it is written to."""

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        """Stand in for the computation in CACHE or PREDICT mode; must not write to `x`.

        What it gives may be its memory itself: to be read only, and before the next `keep`.
        """
        raise RuntimeError(f"{type(self).__name__} chose {mode} but has no stand-in at {site}")

    def rank(self, keys: Tensor, queries: Tensor) -> Tensor:
        """What each key of finished units is worth where a backbone holds only some of them ("kv_capacity").

        `keys` (tokens, groups, d) in the order of the video, `queries` (n, heads, d) of the youngest unit's last
        tokens -> (tokens, groups), float32; the highest stay. By default the newest.
        """
        return torch.arange(len(keys), dtype=torch.float32, device=keys.device)[:, None].expand(keys.shape[:2])

    def state(self) -> Iterable[Tensor]:
        """The tensors held between rows, for the memory account."""
        return ()

    def counters(self) -> dict[str, int]:
        """How often each stability control fired since `reset`."""
        return {}


@dataclass
class Original(Method):
    """The unaccelerated pipeline."""
