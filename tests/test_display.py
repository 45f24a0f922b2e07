"""The progress display of a sweep: time left for all remaining videos, plain lines without a terminal."""

from io import StringIO

import pytest
from rich.console import Console

from sweep.display import Display


@pytest.fixture
def console():
    return Console(file=StringIO(), width=120)


def said(console):
    return console.file.getvalue()


def made(display, seconds, status="ok"):
    display("video", "k", "tiny scope", "a fox", 3)
    display("made", status, seconds)


def test_time_left_covers_the_cells_to_come_and_not_only_the_present_one(console):
    with Display(console, [("tiny original", 3), ("tiny scope", 10)]) as display:
        display.begin()
        display("cell", "tiny original", 3)
        assert display.left() == ""
        made(display, 10.0)
        assert display.left() == "about 2 min left"  # 2 + 10 of 10 s: a cell without a video counts as the others
        made(display, 10.0)
        made(display, 10.0)
        display.begin()
        display("cell", "tiny scope", 10)
        made(display, 2.0)
        assert display.left() == "about 18 s left"
    assert "tiny scope a fox: ok, 10.0 s (about 2 min left)" in said(console)


def test_cells_of_one_label_are_counted_apart_and_a_cell_that_starts_anew_is_the_same(console):
    with Display(console, [("tiny scope", 2), ("tiny scope", 2)]) as display:
        display.begin()
        display("cell", "tiny scope", 2)
        made(display, 30.0)
        display("cell", "tiny scope", 1)  # its process died, the next one takes over
        assert display.left() == "about 90 s left"
        made(display, 30.0)
        display.begin()
        display("cell", "tiny scope", 0)
        assert display.left() == ""
    assert "tiny scope: nothing to do" in said(console)


def test_a_video_that_failed_says_nothing_of_the_others_time(console):
    with Display(console, [("tiny scope", 3)]) as display:
        display.begin()
        display("cell", "tiny scope", 3)
        made(display, None, "failed")
        assert display.left() == ""
        made(display, 10.0)
        assert display.left() == "about 10 s left"


def test_bars_are_for_a_terminal_of_ones_own():
    for shared in (False, True):
        console = Console(file=StringIO(), width=120, force_terminal=True)
        with Display(console, [("tiny scope", 1)], shared=shared) as display:
            display.begin()
            display("cell", "tiny scope", 1)
            made(display, 1.0)
        assert ("━" in said(console)) is not shared
        assert ("tiny scope a fox: ok" in said(console)) is shared
