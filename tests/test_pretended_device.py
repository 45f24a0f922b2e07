"""The GPU path without a GPU: what the pretended device catches, that results are the CPU's, and full-size models."""

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F

from baselines.uniform import Uniform
from benchmarks import rehearsal
from benchmarks.common import composed
from engine.loop import generate
from engine.produce import warm_up
from models.magi1.backbone import Magi1Backbone
from models.skyreels.backbone import SkyReelsV2
from tests import tiny
from tests.menu import MENU, make
from tests.pretended_device import CARD, Mixed, OnCard, attention_kernel, pretended
from tests.test_magi1_backbone import _model
from tests.test_menu_identities import SMALL

SAMPLE = {  # by their parts of the GPU path: predictions, block sites, several waits, units, stored keys
    "skyreels": ["scope", "adacache", "bwcache", "flowcache", "composite"],
    "magi1": ["scope", "dicache", "xcache"],
}
FULL = {"skyreels": ["scope"], "magi1": ["teacache"]}
GB = 1e9
FEW = {"skyreels": ["model.frames=97", "model.steps=8", "model.ar_step=0"], "magi1": ["model.steps=8"]}


def build(name, changes, device):
    """The small model `name` on a device."""
    if name == "magi1":
        on_cpu = _model(**changes)
        kind, settings = Magi1Backbone, on_cpu.settings
    else:
        kind, settings = SkyReelsV2, replace(tiny.TINY, **SMALL, **changes)
    model = kind(settings, device)
    model.load()
    return model


def moved(plain, model):
    """`model` on the device with the weights of `plain`."""
    for part in ("transformer", "vae"):
        there = getattr(model, part).state_dict()
        for key, value in getattr(plain, part).state_dict().items():
            there[key].copy_(value)
    if getattr(plain, "tokens", None) is not None:
        model.tokens = plain.tokens
    return model


def video(model, method, texts):
    ledger = []
    latents = generate(model, method, model.conditioning("a fox", texts), 0, ledger)
    return latents, ledger, list(model.decode(latents))


def near(a, b):
    """Whether two batches of frames differ by at most one level: on a CPU the decoder sums in another order."""
    return int((a.int() - b.int()).abs().max()) <= 1 and float((a != b).float().mean()) < 1e-3


@pytest.mark.parametrize(
    ("name", "method"),
    [
        pytest.param(name, one, marks=[pytest.mark.slow] if one in ("bwcache", "composite", "xcache") else [])
        for name, methods in SAMPLE.items()
        for one in methods
    ],
)
def test_a_small_model_gives_the_cpus_numbers_and_waits_only_for_decisions(name, method):
    line = MENU[method]
    on, changes = dict(line.on) | ((line.magi1 or {}) if name == "magi1" else {}), {}
    if name == "skyreels":
        changes = line.skyreels or {}
    plain = build(name, changes, torch.device("cpu"))
    texts = plain.texts(["a fox", ""])
    latents, ledger, frames = video(plain, make(method, on), texts)
    with pretended("cpu") as card:
        model, own = moved(plain, build(name, changes, CARD)), make(method, on)
        warm_up(model, model.conditioning("a fox", texts))
        card.restart()
        with rehearsal.deciding(card, own), rehearsal.watching(card, model):
            there, decided, shown = video(model, own, texts)
        assert isinstance(there, OnCard) and torch.equal(there.held, latents)
        assert decided == ledger and all(map(near, frames, shown))
        assert not [fault for fault in rehearsal.faults(card) if not fault.startswith("math")]  # of float32 heads


def places(module):
    """The kinds of device that a module's parameters are on."""
    return {parameter.device.type for parameter in module.parameters()}


@pytest.mark.parametrize("name", SAMPLE)
def test_with_offload_all_the_denoiser_is_on_the_cpu_while_frames_are_decoded(name):
    plain = build(name, {}, torch.device("cpu"))
    texts = plain.texts(["a fox", ""])
    latents, _, frames = video(plain, Uniform(2), texts)
    with pretended("cpu"):
        model = moved(plain, build(name, {}, CARD))
        model.offload = True
        there = generate(model, Uniform(2), model.conditioning("a fox", texts), 0, [])
        decoded = model.decode(there)
        first = next(decoded)
        assert places(model.transformer) == {"cpu"} and places(model.vae) == {"cuda"}
        shown = [first, *decoded]
        assert places(model.transformer) == {"cuda"}
    assert torch.equal(there.held, latents) and all(map(near, frames, shown))


@pytest.mark.parametrize("name", ["skyreels_tiny", "magi1_tiny"])
def test_a_trained_preset_encodes_denoises_and_decodes_as_on_the_cpu(name):
    def run(device):
        _, model, method = composed([f"model={name}", "method=scope", "model.steps=8", f"device={device}"])
        model.load()
        for part in (model.transformer, model.vae):  # mapped from a file, weights may be unaligned and round otherwise
            for x in [*part.parameters(), *part.buffers()]:
                x.data = x.data.clone()
        texts = model.texts(["a red circle"])
        model.rows = list(model.schedule())[:3]
        latents = generate(model, method, model.conditioning("a red circle", texts), 0, [])
        return texts, latents, next(iter(model.decode(latents)))

    texts, latents, frames = run("cpu")
    with pretended("cpu"):
        there = run("cuda")
        assert all(torch.equal(x, there[0][prompt]) for prompt, x in texts.items())
        assert torch.equal(there[1].held, latents) and torch.equal(there[2], frames)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_at_full_size_every_attention_has_a_fused_kernel_and_no_row_waits_more_than_its_decision(name):
    for method in FULL[name]:
        found = rehearsal.rehearse(method, [f"model={name}", *FEW[name], f"method={method}"], rows=2)
        assert not found.refused and found.rows == 2
        assert not found.faults
        assert set(found.kernels) == {"flash"}
        assert found.waits <= 1
        assert found.weights < found.denoising < rehearsal.bound(found) * GB


@dataclass
class Faulty(Uniform):
    """Every second row is reused, and `fill` does something that a GPU does badly."""

    fault: str = ""

    def fill(self, site, part, mode, x):
        out = super().fill(site, part, mode, x)
        if self.fault == "cpu index":
            return out[torch.arange(len(out))]
        if self.fault == "list index":
            return out[[*range(len(out))]]
        if self.fault == "item":
            return out * (0.0 * out.mean().item() + 1)
        if self.fault == "mask":
            q = torch.zeros(1, 2, 4, 8, device=x.device, dtype=torch.bfloat16)
            F.scaled_dot_product_attention(q, q, q, attn_mask=torch.zeros(4, 4, device=x.device, dtype=torch.float32))
        if self.fault == "float64":
            return out.double().float()
        if self.fault == "pageable":
            return out + torch.zeros(1, 1, 1, 1).to(x.device)
        if self.fault == "host":
            return out.cpu().to(x.device)
        return out + torch.zeros(out.shape[-1]) if self.fault == "mixed" else out


@pytest.fixture(scope="module")
def one():
    plain = tiny.build(steps=4, frames=5, base_frames=5, overlap=0, block=1, ar_step=0)
    return plain, plain.texts(["a fox", ""])


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("", ""),
        ("cpu index", "pageable"),
        ("list index", "pageable"),
        ("pageable", "pageable"),
        ("item", "wait"),
        ("host", "wait pageable"),
        ("mask", "math"),
        ("float64", "float64"),
        ("mixed", "mixed"),
    ],
)
def test_a_deliberate_fault_is_caught_where_it_is(one, fault, kind):
    plain, texts = one
    with pretended("cpu") as card:
        model = SkyReelsV2(plain.settings, CARD)
        model.load()
        method = Faulty(interval=2.0, fault=fault)
        with rehearsal.deciding(card, method), rehearsal.watching(card, model):
            text = model.conditioning("a fox", texts)
            if fault == "mixed":
                with pytest.raises(Mixed, match="cpu"):
                    generate(model, method, text, 0, [])
            else:
                generate(model, method, text, 0, [])
        found = rehearsal.faults(card)
    assert {line.split(" at ")[0] for line in found} == set(kind.split())
    assert all("test_pretended_device.py:fill" in line for line in found)


def test_a_decision_may_bring_one_vector_and_not_two(one):
    plain, texts = one

    @dataclass
    class Asks(Uniform):
        times: int = 1

        def decide(self, part, probe, branch=""):
            for _ in range(self.times):
                probe("latent").mean(1).flatten().tolist()
            return super().decide(part, probe, branch)

    for times in (1, 2):
        with pretended("cpu") as card:
            model, method = SkyReelsV2(plain.settings, CARD), Asks(interval=2.0, times=times)
            model.load()
            with rehearsal.deciding(card, method), rehearsal.watching(card, model):
                generate(model, method, model.conditioning("a fox", texts), 0, [])
            assert card.decided == 4
            assert card.times("wait") == 4 * (times - 1)


def test_a_large_product_in_float32_is_a_fault_unless_the_guide_names_it():
    with pretended("meta") as card:
        card.watching = True
        torch.zeros(64, 64, device="cuda") @ torch.zeros(64, 64, device="cuda")
        assert any("float32 product, 100%" in line for line in rehearsal.faults(card))
    with pytest.raises(torch.OutOfMemoryError, match="GB wanted"), pretended("meta", total=10**9):
        torch.zeros(10**9, device="cuda")


def test_memory_is_counted_until_a_tensor_and_all_its_views_are_gone():
    with pretended("meta") as card:
        x = torch.zeros(1000, 1000, device="cuda")
        view = x[10:]
        del x
        assert card.live == 4_000_256 and card.peak == card.live  # whole blocks of 512 bytes
        copy = view + 1
        assert card.live == card.peak == 4_000_256 + 3_960_320
        del view, copy
        assert card.live == 0


def test_which_kernel_takes_an_attention_call():
    half, single = torch.zeros(1, 2, 4, 8, dtype=torch.bfloat16), torch.zeros(1, 2, 4, 8)
    mask = torch.zeros(4, 4, dtype=torch.bfloat16)
    assert attention_kernel(half, half, half, None) == "flash"
    assert attention_kernel(single, single, single, None) == "efficient"
    assert attention_kernel(half, half, half, mask) == "efficient"
    assert attention_kernel(half, half, half, mask.float()) == "math"
    assert attention_kernel(half, half[:, :1], half[:, :1], mask) == "math"  # grouped queries with a mask
    assert attention_kernel(half, half.double(), half, None) == "math"


SLOW = [pytest.param(one, marks=pytest.mark.slow) for one in ({"predictor": "auto"}, {"reject": 1e-3})]


@pytest.mark.parametrize("changes", [{"predictor": "auto", "reject": 0.3}, *SLOW])
def test_scope_reads_errors_and_corrections_in_the_one_transfer_of_its_decision(changes):
    on = {"tau_cache": 0.1, "tau_predict": 9.0, "selective": "none", "max_skip": 1} | changes
    plain = build("skyreels", {}, torch.device("cpu"))
    texts = plain.texts(["a fox", ""])
    latents, ledger, _ = video(plain, make("scope", on), texts)
    with pretended("cpu") as card:
        model, own = moved(plain, build("skyreels", {}, CARD)), make("scope", on)
        with rehearsal.deciding(card, own), rehearsal.watching(card, model):
            there, decided, _ = video(model, own, texts)
        assert torch.equal(there.held, latents) and decided == ledger
        assert not card.times("pageable", "mixed") and not [f for f in rehearsal.faults(card) if f.startswith("wait")]
    assert len({entry.mode for entry in ledger}) > 1
