"""The interface of a method: what the denoising loop asks it. The default answers are those of the Original."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from engine.knob import Knob
from engine.row import Decision, Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor

    from engine.course import Course
    from engine.footprint import Sizes

TIME_SIGNALS = frozenset({"time_embedding", "time_projection"})  # those of Method that depend on the times alone
Probe = Callable[[str], "Tensor"]  # name of a signal -> (slots, ...) float32, without a forward of the model


class Capabilities(Protocol):
    """What a method may ask a backbone before its modules are built. engine/backbone.py defines the rest."""

    name: str
    settings: Any  # the backbone's dataclass of settings
    branches: tuple[str, ...]  # guidance branches of one forward, ("cond",) without guidance

    @property
    def depth(self) -> int:
        """Transformer blocks."""
        ...

    @property
    def offers(self) -> frozenset[str]:
        """Capabilities and signals, see Method.requires."""
        ...

    def advice(self, lacking: str) -> str:
        """What to change when a method asks for `lacking`."""
        ...

    def schedule(self) -> Sequence[Row]:
        """Every row of the video, as plain data."""
        ...


class Method:
    """The Original pipeline. A method that accelerates it overrides what it changes.

    Subclasses are dataclasses. Their fields are the method's parameters. `reset` creates all running state, so that
    no state remains from an earlier video or segment.

    `requires` names what the backbone must offer. A signal, which `probe(NAME)` of `decide` measures, is one of
    "latent": the latents of the row, (slots, C, H, W).
    "patch_embedding": the latents after the first layer, (slots, tokens per slot, width).
    "time_embedding": the embedding of the timesteps, (slots, width). It is the same for every prompt.
    "time_projection": the modulation that the blocks compute from it, (slots, vectors, width).
    The other names are
    "blocks", "branches", "cross_attention", "guidance", "transformer": sites of the forward, see `Site`.
    "nested": a site inside the span of another site.
    "partial": a part of a row can be forwarded without the rest; a method of grain "unit" needs it. Attention then
    uses the stored keys and values of skipped parts, from their last computation in the same guidance branch and block.
    Slots of the row that belong to no part (waiting or finished slots) are computed with the others, as in the
    unmodified forward, unless `narrow` leaves them out. So a row with every part computed equals the Original's.
    "tokens": at sites of blocks a RECOMPUTE decision may name some token positions (`Decision.tokens`). The other
    tokens of the part get what `fill` returns in CACHE mode, after `keep`, whose `part.tokens` says which are fresh.
    Attention reads their stored keys and values, from their last computation. It needs "partial".
    "narrow": the forward can cover fewer slots than the row.
    "settled": settled slots can be left out of the forward (`Row.exact`).
    "given": slots that were clean at the start of the segment can be left out of the forward.
    "aim": the model is told to which time a step leads, so one step may lead over several of the schedule (`Row.aim`).
    "renew": the model keeps the keys of finished slots; a row with `renew` computes them anew.
    "retrace": the sampler can go through the steps of one AR unit again, see `courses`.
    """

    decided_by: ClassVar[str] = "content"  # "schedule": its decisions depend on the rows and its settings alone
    least_steps: ClassVar[int] = 1  # of a slot; with fewer the method can skip none, whatever its settings
    knobs: ClassVar[tuple[Knob, ...]] = ()  # settings that a calibration changes; the first has the largest effect

    @property
    def grain(self) -> str:
        """What one decision covers: a whole "row", or an AR "unit" of it."""
        return "row"

    @property
    def branchwise(self) -> bool:
        """Whether each guidance branch has its own decision, instead of one decision for all branches."""
        return False

    @property
    def requires(self) -> frozenset[str]:
        """What the backbone must offer, see the class."""
        return frozenset()

    def check(self, model: Capabilities) -> None:
        """Raise ValueError if the backbone lacks what this method needs. Called before the model is built."""
        lacking = sorted(self.requires - model.offers)
        if lacking:
            offered = ", ".join(sorted(model.offers))
            raise ValueError(
                f"{type(self).__name__} needs {', '.join(lacking)}, which {model.name} does not offer (it offers: "
                f"{offered}); {model.advice(lacking[0])}"
            )
        rows = model.schedule() if self.least_steps > 1 else ()
        if rows and rows[0].steps < self.least_steps:
            raise ValueError(
                f"{type(self).__name__} compares steps, so it needs at least {self.least_steps} of them to skip one, "
                f"and {model.name} has {rows[0].steps}; set model.steps={self.least_steps} or more"
            )

    def reschedule(self, settings: Any) -> Any:
        """The backbone settings to run with. Only a method that changes the sampler returns other settings."""
        return settings

    def reseed(self, seed: int) -> int:
        """The seed of the noise. Only a control that measures the difference between seeds returns another seed."""
        return seed

    def attached(self, model: Capabilities) -> AbstractContextManager[object]:
        """A context that is open while one video is denoised. A method adds and removes hooks on the model here."""
        return nullcontext()

    def reset(self) -> None:
        """Clear all state. Called at the start of every video and every segment."""

    def narrow(self, row: Row) -> Row:
        """The part of the row that a forward covers (selective computation)."""
        return row

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        """Propose a mode. Called once per part of every row, and per branch if the method is branchwise."""
        return Decision(Mode.RECOMPUTE)

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        """Update the state for the mode that is used. It differs from the proposed mode if the row must recompute."""

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        """The sites where this method may supply results, in a backbone of `depth` blocks. Spans must not overlap."""
        return ()

    def revise(self, site: Site, part: Row, decision: Decision) -> Decision:
        """The final decision at `site`, for a part that `decide` did not set to RECOMPUTE.

        Called when the forward reaches the site, after `keep` at earlier sites. So a method may use the results of the
        first blocks to decide about the rest, or decide differently per kind of site. A method that is not branchwise
        must return the same mode in every guidance branch.
        """
        return decision

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        """Store a fresh result `out` of the input `x` at `site`. Copy hidden states: the forward writes to them."""

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        """The result at `site` in CACHE or PREDICT mode, of the shape of the computed one. Must not write to `x`.

        The result may be the method's own memory. The caller must not write to it, and must read it before the next
        `keep`.
        """
        raise RuntimeError(f"{type(self).__name__} chose {mode} at {site}, but its `fill` gives no result there")

    def courses(self, row: Row) -> Sequence[Course]:
        """The AR units of `row` that are integrated again before the sampler's step, see engine/retrace.py."""
        return ()

    def rank(self, keys: Tensor, queries: Tensor) -> Tensor:
        """The importance of each key of finished units, for a backbone that stores only some keys ("kv_capacity").

        `keys` (tokens, groups, d) in the order of the video, `queries` (n, heads, d) of the last tokens of the newest
        unit -> (tokens, groups), float32. The keys with the highest values stay. By default these are the newest keys.
        """
        import torch  # only here: what plans a sweep reads methods without it

        return torch.arange(len(keys), dtype=torch.float32, device=keys.device)[:, None].expand(keys.shape[:2])

    def state(self) -> Iterable[Tensor]:
        """The tensors that the method holds between rows; their size is the method's memory."""
        return ()

    def footprint(self, sizes: Sizes, depth: int, branches: int) -> float | None:
        """Bytes that it holds per latent slot of a row; None if `state` on a few numbers shows them, or if not known.

        For the hooks of a library, and for a method that reads hidden states of a certain width.
        """
        return None

    def counters(self) -> dict[str, int]:
        """How often each stability check took effect since `reset`."""
        return {}


@dataclass
class Original(Method):
    """The unaccelerated pipeline."""
