"""What the table of memory says of every method is what it holds, to the byte, on both small models."""

from importlib.util import find_spec

import pytest

from baselines.catalogue import PAGE
from baselines.held import HELD, SIZES, Size, table
from conf.schema import options
from engine.loop import generate
from tests.menu import MENU, make
from tests.test_magi1_backbone import _model
from tests.tiny import ARCHITECTURE, build, texts_of

ACTIVE = [name for name in options("method") if MENU[name].on is not None]
AT_MOST = {("delta_dit", "magi1")}  # its two stages are met by different chunks, so not every chunk holds both


@pytest.fixture(scope="module")
def models():
    architecture = {**ARCHITECTURE, "num_layers": 4}
    made = {}

    def of(name, changes):
        key = (name, str(changes))
        if key not in made:
            made[key] = _model() if name == "magi1" else build(architecture=architecture, steps=12, **changes)
        return made[key]

    return of


def size_of(model, name):
    """The table's description of a small model, from its own settings."""
    s = model.settings
    tokens, latent = s.height // 16 * (s.width // 16), 16 * (s.height // 8) * (s.width // 8) * 4
    if name == "magi1":
        width = s.architecture["hidden_size"]
        kinds, modulation, unit, copies = SIZES[1].kinds, 2 * width, s.chunk, 2
    else:
        width = s.architecture["num_attention_heads"] * s.architecture["attention_head_dim"]
        kinds, modulation, unit, copies = SIZES[0].kinds, 6 * width, s.block, 1
    signals = {"time_projection": 4 * modulation, "patch_embedding": 4 * tokens * width}
    return Size(name, 4 * tokens * width, latent, signals, model.depth, len(model.branches), kinds, unit, copies)


def peak(model, method, text):
    """(bytes held at most, slots of the video)."""
    held = []
    latents = generate(model, method, text, 0, [], lambda row: held.append(
        sum(tensor.numel() * tensor.element_size() for tensor in method.state())))  # fmt: skip
    return max(held), len(latents)


@pytest.mark.parametrize("name", ACTIVE)
@pytest.mark.parametrize("model_name", ["skyreels", "magi1"])
def test_a_method_holds_what_the_table_says(models, model_name, name):
    line = MENU[name]
    if name == "external_cache_dit" and find_spec("cache_dit") is None:
        pytest.skip("the extra `external` is not installed")
    if model_name == "magi1" and line.refused:
        with pytest.raises(ValueError, match=line.refused):
            make(name, line.on).check(models("magi1", {}))
        return
    model = models(model_name, (line.skyreels or {}) if model_name == "skyreels" else {})
    changes = line.magi1 if model_name == "magi1" and line.magi1 is not None else line.on
    method = make(name, changes)
    method.check(model)
    texts = texts_of(model, "a") if model_name == "skyreels" else model.texts(["a"])
    held, slots = peak(model, method, model.conditioning("a", texts))
    expected = slots * HELD[name].per_slot(size_of(model, model_name))
    if (name, model_name) in AT_MOST:
        assert 0 < held <= expected
    else:
        assert held == expected, f"{held / slots} bytes per slot"


def test_what_never_skips_holds_nothing(models):
    model = models("skyreels", {})
    for name in set(HELD) - set(ACTIVE):
        assert HELD[name].per_slot(SIZES[0]) == 0
        method = make(name, MENU[name].off or {})
        assert not list(method.state()), name
        assert method.sites(model.depth, model.schedule()[0]) == () or name.startswith("external"), name


def test_the_page_shows_every_method_of_the_menu():
    assert set(HELD) == set(options("method")), "describe it in baselines/held.py"
    page = PAGE.read_text(encoding="utf-8")
    assert all(line in page for line in table())


def test_the_published_sizes_by_hand():
    """TaylorSeer on SkyReels-V2: 2 x 3 tensors in 30 blocks and 2 branches, 6.27 MB a frame (157 MB for 25): 56 GB."""
    sky, magi = SIZES
    assert 25 * sky.hidden == 51_000 * 1536 * 2 == 156_672_000
    assert 25 * HELD["taylorseer"].per_slot(sky) == 360 * 156_672_000
    assert HELD["scope"].per_slot(magi) == 3 * 16 * 60 * 60 * 4 + 24_576
