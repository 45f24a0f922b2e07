"""The table of memory: complete, on the page, right by hand. tests/test_menu_identities.py measures it."""

from baselines.shared.catalogue import PAGE
from baselines.shared.memory_account import ELSEWHERE, HELD, SIZES, table
from conf.schema import options
from tests.menu import MENU, make


def test_what_never_skips_holds_nothing():
    for name in [name for name, line in MENU.items() if line.on is None and name not in ELSEWHERE]:
        assert HELD[name].per_slot(SIZES[0]) == 0
        assert not list(make(name, MENU[name].off or {}).state()), name


def test_the_page_shows_every_method_of_the_menu():
    assert set(HELD) == set(options("method")), "describe it in baselines/shared/memory_account.py"
    page = PAGE.read_text(encoding="utf-8")
    assert all(line in page for line in table())


def test_the_published_sizes_by_hand():
    """TaylorSeer on SkyReels-V2: 2 x 3 tensors in 30 blocks and 2 branches, 6.27 MB a frame (157 MB for 25): 56 GB."""
    sky, magi = SIZES
    assert 25 * sky.hidden == 51_000 * 1536 * 2 == 156_672_000
    assert 25 * HELD["taylorseer"].per_slot(sky) == 360 * 156_672_000
    assert HELD["scope"].per_slot(magi) == 3 * 16 * 60 * 60 * 4 + 24_576
    assert HELD["external_diffusers_taylorseer"].per_slot(sky) == 2 * HELD["taylorseer"].per_slot(sky)  # in float32
