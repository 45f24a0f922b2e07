"""The per-slot memory: rings, growth, and slots with different numbers of values."""

import pytest
import torch

from engine.discrepancy import Discrepancy, relative_l1
from engine.forecast import FORECASTERS, newton
from engine.history import History


def of(*values):
    return torch.tensor(values).view(-1, 1)


def test_a_slot_keeps_its_newest_values_and_their_levels():
    history = History(2)
    for k, value in enumerate((1.0, 2.0, 3.0)):
        history.push([7], [10.0 - k], of(value))
    assert history.count(7) == 2 and history.levels[7] == [9.0, 8.0]
    assert history.last([7]).item() == 3.0
    assert history.predict([7], newton, [6.0], [1]).item() == pytest.approx(5.0)


def test_slots_outside_the_buffer_join_it_on_either_side_and_disturb_nothing():
    history = History(2)
    history.push([5, 6], [1.0, 1.0], of(5.0, 6.0))
    history.push([3, 5], [1.0, 0.5], of(3.0, 5.5))
    history.push([8], [1.0], of(8.0))
    assert history.last([3, 5, 6, 8]).flatten().tolist() == [3.0, 5.5, 6.0, 8.0]
    assert [history.count(slot) for slot in (3, 4, 5, 6, 7, 8)] == [1, 0, 2, 1, 0, 1]
    assert history.predict([5], newton, [0.0], [1]).item() == pytest.approx(6.0)


def test_a_window_that_moves_along_holds_no_more_than_the_window():
    """Slots 0-3, then 2-5 and 4-7 (two slots finish at a time), then 12-15, which are all new."""
    history = History(2)
    for first in (0, 2, 4, 12):
        for level in (1.0, 0.5):
            slots = range(first, first + 4)
            history.push(slots, [level] * 4, of(*(10 * slot + level for slot in slots)), settled=first)
        assert [tensor.shape for tensor in history.tensors()] == [(2, 4, 1)]
        assert history.last(slots).flatten().tolist() == [10 * slot + 0.5 for slot in slots]
        assert history.predict(slots, newton, [0.0] * 4, [1] * 4).flatten().tolist() == [10.0 * slot for slot in slots]
        assert [history.count(slot) for slot in (first - 1, first)] == [0, 2]


def test_what_has_settled_stays_while_there_is_room_or_it_is_still_pushed():
    history = History(1)
    history.push(range(4), [1.0] * 4, of(0.0, 1.0, 2.0, 3.0))
    history.push([2, 3], [0.5] * 2, of(2.5, 3.5), settled=2)  # no room is needed
    assert history.last(range(4)).flatten().tolist() == [0.0, 1.0, 2.5, 3.5]
    history.push([1, 4], [0.5] * 2, of(1.5, 4.5), settled=3)  # 1 comes once more
    assert history.last(range(1, 5)).flatten().tolist() == [1.5, 2.5, 3.5, 4.5]
    assert history.count(0) == 0


def test_slots_of_different_order_are_predicted_together():
    history = History(3)
    for s in (1.0, 0.8, 0.5):
        history.push([0], [s], of(s * s))
    history.push([1], [1.0], of(9.0))
    found = history.predict([0, 1], newton, [0.2, 0.2], [2, 0])
    assert found.flatten().tolist() == pytest.approx([0.04, 9.0])


def test_what_a_slot_has_not_seen_does_not_reach_its_prediction():
    history = History(2)
    history.push([0, 1], [1.0, 1.0], of(1.0, float("nan")))
    history.push([0], [0.5], of(2.0))
    history.push([2], [1.0], of(4.0))
    assert history.predict([0, 2], newton, [0.25, 0.25], [1, 0]).flatten().tolist() == pytest.approx([2.5, 4.0])


@pytest.mark.parametrize("formula", FORECASTERS.values())
def test_what_does_not_change_is_predicted_to_stay_to_the_last_bit(formula):
    history, value = History(2), torch.tensor([[1 / 3, 1e-30], [7e20, -0.1]])
    for level in (0.9, 0.7):
        history.push([4, 5], [level, level], value)
    assert torch.equal(history.predict([4, 5], formula, [0.45, 0.1], [1, 1]), value)


def test_neighbours_are_read_in_place_and_strangers_are_not():
    history = History(2)
    history.push([0, 1, 2], [1.0] * 3, of(1.0, 2.0, 3.0))
    memory = next(iter(history.tensors()))
    for slots, shared in (([0, 1, 2], True), ([1, 2], True), ([0, 2], False), ([1, 0], False)):
        last = history.last(slots)
        assert last.flatten().tolist() == [slot + 1.0 for slot in slots]
        assert (last.untyped_storage().data_ptr() == memory.untyped_storage().data_ptr()) == shared
    history.push([1], [0.5], of(2.5))
    assert history.last([0, 1, 2]).flatten().tolist() == [1.0, 2.5, 3.0]  # their newest lie in different rings


def test_asking_an_empty_history_says_so():
    with pytest.raises(RuntimeError, match="no history"):
        History(1).last([0])


def test_half_precision_velocities_are_kept_and_combined_in_float32():
    history = History(2)
    for level, value in ((1.0, 1.0), (0.5, 1.0 + 2**-7)):
        history.push([0], [level], of(value).bfloat16())
    found = history.predict([0], newton, [0.25], [1])
    assert found.dtype == torch.float32 and found.item() == 1 + 1.5 * 2**-7


def test_hidden_states_keep_their_own_dtype_when_asked():
    history = History(1, dtype=None)
    history.push([0], [1.0], of(1.5).bfloat16())
    assert history.last([0]).dtype == torch.bfloat16


def test_the_buffer_is_all_that_is_held():
    history = History(3)
    assert list(history.tensors()) == []
    history.push(range(4), [1.0] * 4, torch.ones(4, 2, 5))
    assert [tensor.shape for tensor in history.tensors()] == [(3, 4, 2, 5)]


def test_relative_l1_by_hand():
    now, before = torch.tensor([[2.0, 2.0], [0.0, 3.0]]), torch.tensor([[1.0, 3.0], [1.0, 1.0]])
    assert relative_l1(now, before, 0.0).tolist() == [0.5, 1.5]
    assert relative_l1(now, torch.zeros(2, 2), 0.5).tolist() == [4.0, 3.0]


def test_a_slot_is_compared_with_itself_however_the_interval_moves():
    seen = Discrepancy(eps=0.0)
    assert seen.measure([0, 1], of(1.0, 10.0)) == [None, None]
    seen.remember([0, 1], of(1.0, 10.0))
    assert seen.measure([1, 2], of(15.0, 1.0)) == [0.5, None]
    seen.remember([1, 2], of(15.0, 1.0))
    assert seen.measure([0, 1], of(3.0, 15.0)) == [2.0, 0.0]


def test_one_figure_over_all_slots_weighs_them_by_size():
    seen = Discrepancy(eps=0.0)
    assert seen.pooled([0, 1], of(1.0, 3.0)) is None
    seen.remember([0, 1], of(1.0, 3.0))
    assert seen.pooled([0, 1], of(2.0, 3.0)) == 0.25
    assert seen.pooled([0, 1, 2], of(2.0, 3.0, 1.0)) is None
