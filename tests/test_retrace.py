"""Units that are integrated again: identities on all three backbones, numbers by hand, and what is not kept."""

from dataclasses import replace
from unittest import mock

import pytest
import torch

from baselines.ramp import Ramp
from engine.course import Course, distance
from engine.loop import generate
from engine.method import Original
from engine.retrace import interpolation, retrace
from engine.row import VELOCITY, Row
from models.magi1.backbone import Magi1Backbone
from tests import far, tiny
from tests.test_magi1_backbone import TINY
from tests.toy import Toy, run


class Again(Original):
    """The Original, but every unit is integrated again before every step, from all of its clean estimates."""

    grain = "unit"
    requires = frozenset({"partial", "retrace"})

    def reset(self):
        self.found = {}

    def sites(self, depth, row):
        return (VELOCITY,)

    def keep(self, site, part, x, out):
        if not part.progress:
            self.found[part.slots.start] = Course(x.clone())
        course = self.found[part.slots.start]
        course.passed.append(part)
        course.computed(x, out)

    def courses(self, row):
        return [c for c in self.found.values() if len(c.steps) > 1 and c.passed[-1].iteration == row.iteration]


def magi1(text="a fox"):
    model = Magi1Backbone(TINY, torch.device("cpu"))
    model.load()
    return model, lambda method: generate(model, method, model.conditioning(text, model.texts([text])), 0, [])


def skyreels(**changes):
    model = tiny.build(**changes)
    return model, lambda method: tiny.video(model, method)


def anyflow():
    model = far.build()
    return model, lambda method: far.video(model, method)


BACKBONES = {
    "SkyReels-V2, full": lambda: skyreels(steps=8, addnoise=0),
    "SkyReels-V2, block-causal, two segments": lambda: skyreels(steps=6, attention="block_causal", frames=61),
    "MAGI-1": magi1,
    "AnyFlow-FAR": anyflow,
}


@pytest.fixture(scope="module", params=BACKBONES.values(), ids=BACKBONES)
def backbone(request):
    model, video = request.param()
    return model, video, video(Original())


def test_integrating_again_with_the_computed_estimates_gives_the_same_latents_but_for_rounding(backbone):
    model, video, original = backbone
    method = Again()
    method.check(model)
    torch.testing.assert_close(video(method), original, atol=2e-4, rtol=1e-4)
    assert method.found


def test_a_schedule_of_all_steps_is_the_original_bit_for_bit(backbone):
    model, video, original = backbone
    steps = model.schedule()[0].steps
    assert torch.equal(video(Ramp([[*range(steps)]])), original)


def test_retraced_latents_differ_from_extrapolated_ones_and_are_finite(backbone):
    model, video, _ = backbone
    computed = [[0, *range(2, model.schedule()[0].steps, 2)]]
    found, plain = video(Ramp(computed)), video(Ramp(computed, retrace=False))
    assert torch.isfinite(found).all() and not torch.equal(found, plain)


class Known(Toy):
    """The clean estimate is a given function of the step, whatever the latents are: D(k) = k^3 - 20 k^2 + 5."""

    def velocity(self, latents, row, visit):
        x = latents[row.slots.start : row.slots.stop]

        def whole(x, parts):
            a = [part.slots.start - row.slots.start for part in parts]
            chosen = [range(i, i + len(part.slots)) for i, part in zip(a, parts, strict=True)]
            at = [i for some in chosen for i in some]
            step = torch.tensor([float(row.step[i]) for i in at]).view(-1, 1, 1, 1)
            sigma = torch.tensor([max(row.sigma[i], 1e-9) for i in at]).view(-1, 1, 1, 1)
            return (x[at] - (step**3 - 20 * step**2 + 5)) / sigma

        return visit(VELOCITY, x, whole)

    def advance(self, latents, row, velocity):
        found = super().advance(latents, row, velocity)
        self.course = {**getattr(self, "course", {}), row.step[0]: found[0].clone()}
        return found


def test_a_cubic_course_is_found_exactly_from_four_computed_steps_and_extrapolation_misses_it():
    def course(method):
        model = Known(steps=12, slots=2, block=2, lag=0, noise=lambda slot: 3.0 + slot)
        run(model, method)
        return model.course

    truth, lists = course(Original()), [[0, 3, 6, 9, 11]]
    found, plain = course(Ramp(lists)), course(Ramp(lists, retrace=False))
    torch.testing.assert_close(found[9], truth[9], atol=1e-2, rtol=1e-5)  # after step 9, the fourth that is computed
    assert (plain[9] - truth[9]).abs().min() > 1


def test_the_latents_at_a_closed_gap_are_those_of_the_interpolated_estimates_by_hand():
    """Steps of 1/4 from 1 to 0, D = 8, 0, ... at steps 0 and 2: the line between gives D(1) = 4.
    x0 = 1, x1 = x0 - (x0 - 8) / 4 = 2.75, x2 = x1 + (D(1) - x1) / 3 = 3.1667, and then D(2) = 0: x3 = x2 / 2."""
    latents = torch.full((1, 1, 1, 1), 7.0)
    model = Toy(steps=4, slots=1, block=1, lag=0)
    rows = model.schedule()
    course = Course(torch.full((1, 1, 1, 1), 1.0), [row.units()[0] for row in rows[:3]], [0, 2])
    course.clean = [torch.full((1, 1, 1, 1), 8.0), torch.zeros(1, 1, 1, 1)]
    assert course.closed
    found, velocity = retrace(model, latents, torch.full((1, 1, 1, 1), 99.0), rows[2], course)
    assert found.item() == pytest.approx(3.1667, abs=1e-4)
    assert velocity.item() == pytest.approx(3.1667 / 0.5, abs=1e-4)
    assert model.advance(found, rows[2], velocity).item() == pytest.approx(3.1667 / 2, abs=1e-4)


def test_the_spline_is_exact_for_cubics_and_repeats_the_computed_steps():
    weights = interpolation((0, 2, 5, 9)).double()
    assert weights.shape == (9, 4)
    torch.testing.assert_close(
        weights @ torch.tensor([0.0, 8, 125, 729]).double(), torch.arange(9).double() ** 3, atol=1e-3, rtol=1e-5
    )
    torch.testing.assert_close(weights[5], torch.tensor([0.0, 0, 1, 0]).double())


def test_the_distance_to_the_end_has_the_sign_of_the_models_noise_levels():
    falls = Row(0, 0, range(1), 4, (1,), (0.75,), (0.5,), (True,), 1)
    assert distance(falls) == -0.75 and distance(replace(falls, sigma=(0.25,), sigma_next=(0.5,))) == 0.75


def test_the_last_gap_is_closed_only_where_its_end_is_computed():
    part = Row(3, 0, range(1), 6, (3,), (0.5,), (0.4,), (True,), 1)
    for steps, closed in (([0], False), ([0, 1], False), ([0, 2, 3], False), ([0, 1, 3], True), ([0, 3], True)):
        assert Course(torch.zeros(1), [part], steps).closed is closed


def test_finished_units_are_not_kept():
    method = Ramp([[0, 2, 4]])
    run(Toy(steps=6, slots=12, block=2, lag=3), method)
    assert len(method._courses) <= 3


def test_a_backbone_that_cannot_retrace_is_refused_and_extrapolation_alone_is_not():
    model = tiny.build(steps=6)
    with mock.patch.object(type(model), "offers", model.offers - {"retrace"}):
        with pytest.raises(ValueError, match="Ramp needs retrace"):
            Ramp([[0, 2]]).check(model)
        Ramp([[0, 2]], retrace=False).check(model)
