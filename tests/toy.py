"""A backbone with a known answer, for what can be worked out by hand: velocity = field(sigma), Euler steps."""

from collections import Counter
from dataclasses import dataclass

import torch

from engine.loop import generate
from engine.row import VELOCITY, Site
from engine.staircase import segments, staircase


@dataclass
class Toy:
    """`slots` latent frames of shape (2, 2, 2) on an even grid from 1 to 0, in units of `block` that lag by `lag`.

    Its signal "clock" is `growth` to the power of a slot's steps, so that the relative change of a step is
    exactly growth - 1 (exact in float32 for 1.5 and 2).
    """

    field: object = staticmethod(lambda sigma: 1 + sigma * sigma)
    steps: int = 10
    slots: int = 4
    block: int = 2
    lag: int = 3
    window: int = 100  # slots of a segment
    overlap: int = 0
    growth: float = 1.5
    depth: int = 3
    branches: tuple = ("cond",)
    clock: object = None  # step -> value of the signal instead
    noise: object = None  # (slot) -> value of the initial latents
    poison: int = -1  # iteration whose velocity is NaN

    name = "toy"
    device = torch.device("cpu")
    offers = frozenset({"clock", "blocks", "branches", "narrow", "latent", "partial", "retrace"})
    parameters = 0
    attention = "full"
    weights_id = "none"

    def __post_init__(self):
        self.forwards = Counter()  # by iteration
        self.grid = [1 - k / self.steps for k in range(self.steps + 1)]
        cut = segments(self.slots, self.window, self.overlap, self.block)
        self.rows = staircase(cut, self.steps, self.lag, self.block, self.grid)

    def advice(self, lacking):
        return "use another toy"

    def schedule(self):
        return self.rows

    def start(self, text, seed):
        self.forwards.clear()
        return torch.zeros(self.slots, 2, 2, 2)

    def open(self, latents, row):
        if self.noise:
            for slot, active in zip(row.slots, row.step, strict=True):
                if active == 0:
                    latents[slot] = self.noise(slot)
        return latents

    def probe(self, name, latents, row):
        if name == "latent":
            return latents[row.slots.start : row.slots.stop].clone()
        value = self.clock or (lambda k: self.growth**k)
        return torch.tensor([[value(k)] for k in row.step], dtype=torch.float32)

    def velocity(self, latents, row, visit):
        x = latents[row.slots.start : row.slots.stop]
        truth = torch.tensor([float(self.field(s)) for s in row.sigma]).view(-1, 1, 1, 1)

        def whole(x, parts):
            covered = [slice(p.slots.start - row.slots.start, p.slots.stop - row.slots.start) for p in parts or [row]]
            for branch in self.branches:
                self.forwards[row.iteration] += 1
                h = self._blocks(torch.zeros_like(x), truth, visit, branch)
            if row.iteration == self.poison:
                h = h * float("nan")
            return torch.cat([h[part] for part in covered])

        return visit(VELOCITY, x, whole)

    def _blocks(self, h, truth, visit, branch):
        i = 0
        while i < self.depth:
            stop = visit.stop("blocks", i) or i + 1
            span = range(i, stop)

            def compute(h, parts, span=span):
                return h + truth * len(span) / self.depth

            h = visit(Site("blocks", span, branch), h, compute) if visit.stop("blocks", i) else compute(h, ())
            i = stop
        return h

    def advance(self, latents, row, velocity):
        for i, slot in enumerate(row.slots):
            if row.active[i]:
                latents[slot] += (row.sigma_next[i] - row.sigma[i]) * velocity[i]
        return latents

    def price(self, entries):
        whole = sum(entry.mode == "recompute" for entry in entries)
        return float(whole), float(whole)


def run(model, method, counters=None):
    """(latents, ledger) of one video."""
    ledger = []
    latents = generate(model, method, None, 0, ledger, counters=counters)
    return latents, ledger


def modes(ledger):
    """The ledger's modes as a word: c(ache), p(redict), r(ecompute)."""
    return "".join(entry.mode[0] for entry in ledger)
