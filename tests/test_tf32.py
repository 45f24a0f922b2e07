"""The emulation of TF32: its rounding by hand, and that it touches the named projection of MAGI-1 and nothing else."""

import math

import pytest
import torch

from benchmarks.tf32 import apart, emulated, rounded
from tests.test_magi1_backbone import _model

UP = 2.0**-10  # the distance of two neighbours from 1 on


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (1.0, 1.0),
        (1 + UP, 1 + UP),  # 10 bits of the fraction stay
        (1 + UP / 2, 1.0),  # a tie goes to the even neighbour, here down
        (1 + 3 * UP / 2, 1 + 2 * UP),  # and here up
        (1 + UP / 2 + 2.0**-23, 1 + UP),  # just above a tie
        (1 + 3 * UP / 2 - 2.0**-23, 1 + UP),  # just below one
        (-(1 + UP / 2), -1.0),
        (-(1 + 3 * UP / 2), -(1 + 2 * UP)),
        (2 - 2.0**-23, 2.0),  # the exponent goes up
        (0.1, 0.0999755859375),  # 1638 / 16384
        (2.0**-137, 0.0),  # subnormal: multiples of 2^-136 stay, and a tie goes to zero
        (3 * 2.0**-137, 2 * 2.0**-136),
        (2.0**-126 - 2.0**-149, 2.0**-126),  # the largest subnormal becomes the smallest normal number
        (3.4028234663852886e38, math.inf),  # the largest number lies nearer to 2^128
        (math.inf, math.inf),
        (-math.inf, -math.inf),
    ],
)
def test_a_number_is_rounded_to_the_nearest_of_ten_bits_and_ties_to_even(given, wanted):
    assert rounded(torch.tensor([given])).item() == wanted


def test_zeros_keep_their_sign_and_nan_stays():
    found = rounded(torch.tensor([-0.0, -(2.0**-149), math.nan]))
    assert torch.equal(torch.signbit(found[:2]), torch.tensor([True, True])) and not found[:2].any()
    assert math.isnan(found[2])


def test_bfloat16_is_rounding_to_seven_bits_and_has_tf32_values_only():
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    small = x.bfloat16().float()
    assert torch.equal(rounded(x, 7), small) and torch.equal(rounded(small), small)
    assert not torch.equal(rounded(x), x)


def test_the_projection_multiplies_rounded_factors_and_no_other_product_does():
    model = _model()
    attention = model.transformer.videodit_blocks.layers[0].self_attention
    weight = attention.linear_proj.weight
    own, text = torch.randn(2, 1, 5, weight.shape[1] // 2, generator=torch.Generator().manual_seed(1))
    other = torch.nn.functional.linear(own, attention.linear_qkv.q.weight[:, :1].expand(-1, own.shape[-1]))
    exact = attention.merge(own, text)
    with emulated(model, 10):
        near = attention.merge(own, text)
        again = torch.nn.functional.linear(own, attention.linear_qkv.q.weight[:, :1].expand(-1, own.shape[-1]))
    assert torch.equal(other, again) and torch.equal(attention.merge(own, text), exact)
    with torch.inference_mode():
        weight.copy_(rounded(weight))
    assert torch.equal(attention.merge(rounded(own), rounded(text)), near)
    assert 0 < apart(near, exact) < UP
