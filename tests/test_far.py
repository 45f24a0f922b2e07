"""AnyFlow-FAR: our loop is diffusers' pipeline; its rows, its clean passes, their FLOPs, and what it refuses."""

import shutil

import pytest
import torch
from PIL import Image

from baselines.ca2vdm import Ca2VDM
from baselines.shared.schedule import place
from engine.ledger import flops, forwards, plan
from engine.loop import generate
from engine.method import Original
from engine.row import Mode
from engine.weights import WeightsError
from models.far.chunks import Chunks, cut
from models.far.past import Grid, rotations
from models.far.plan import noise_levels
from models.far.settings import Far
from models.far.times import second
from models.prefix import read_prefix
from models.wan.vae import encode
from sweep.schedules.task import units_of
from tests import far
from tests.counting import Counter, counted
from tests.tiny import save_checkpoint


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 1},
        {"steps": 4, "guidance": 3.0, "use_mean_velocity": False},
        pytest.param(  # two chunks
            {"steps": 50, "frames": 5, "chunk_partition": [1, 1], "shift": 1.0}, marks=pytest.mark.slow
        ),
        {"steps": 2, "architecture": far.ARCHITECTURE | {"full_chunk_limit": 2, "deltatime_type": "t-r"}},
    ],
    ids=["1 step", "4 steps, guidance", "50 steps", "a model that keeps one chunk in full"],
)
def test_our_loop_is_the_pipeline_of_diffusers(changes):
    model = far.build(**changes)
    torch.testing.assert_close(far.video(model, Original()), far.stock(model), atol=1e-5, rtol=0)


def test_a_prefix_is_continued_as_the_pipeline_of_diffusers_continues_it(tmp_path):
    """An image, which is the first chunk; and a video's latents, which are the first two."""
    pixels = torch.randint(0, 256, (32, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "image.png")
    model = far.build(prefix=str(tmp_path / "image.png"), frames=17, steps=2)
    given = encode(model.vae, read_prefix(tmp_path / "image.png", 1, 16, 32, 64), far.CPU)
    ours = far.video(model, Original())
    assert torch.equal(ours[:1], given)
    image = pixels.permute(2, 0, 1)[None, None] / 255
    torch.testing.assert_close(ours, far.stock(model, video=image), atol=1e-5, rtol=0)
    assert [row.forced for row in model.schedule()][:2] == ["clean pass", ""]


def test_two_given_chunks_are_continued_as_the_pipeline_of_diffusers_continues_them(monkeypatch):
    given = torch.randn(3, 16, 4, 8, generator=torch.Generator().manual_seed(0))
    model = far.build(prefix="clip.mp4", prefix_frames=9, frames=17, steps=1, guidance=2.0)
    monkeypatch.setattr(far.AnyFlowFAR, "_prefix", lambda self: given)
    ours = far.video(model, Original())
    torch.testing.assert_close(ours, far.stock(model, video_latents=given[None]), atol=1e-5, rtol=0)
    assert [row.forced for row in model.schedule()] == ["clean pass", "clean pass", ""]


def test_padding_keys_are_attended_to_only_where_asked():
    """diffusers' pipeline fills a chunk's tokens up to 128 with keys of zeros; training masks them."""
    as_stock, masked = (far.video(far.build(steps=1, frames=9, padding=p), Original()) for p in ("attended", "masked"))
    assert (as_stock - masked).abs().max() > 1e-3


def test_rows_are_a_chunks_steps_and_then_its_clean_pass():
    rows = far.build(steps=2, frames=17).schedule()
    told = [(row.slots, row.step[0], row.forced, set(row.active), row.number(row.slots.start)) for row in rows]
    assert told == [
        *[(range(1), 0, "", {True}, 0), (range(1), 1, "", {True}, 0), (range(1), 2, "clean pass", {False}, 0)],
        *[(range(1, 3), 0, "", {True}, 1), (range(1, 3), 1, "", {True}, 1), (range(1, 3), 2, "clean pass", {False}, 1)],
        *[(range(3, 5), 0, "", {True}, 2), (range(3, 5), 1, "", {True}, 2)],  # nothing attends to the last chunk
    ]
    assert [row.iteration for row in rows] == list(range(8))
    assert [row.last for row in rows] == [False] * 7 + [True]
    assert [row.sigma[0] for row in rows[:3]] == [*noise_levels(2, 5.0)] == [1.0, pytest.approx(5 / 6), 0.0]


class Asked(Original):
    """The Original, which notes the rows that it is asked about."""

    def decide(self, part, probe, branch=""):
        self.rows = [*getattr(self, "rows", []), part]
        return super().decide(part, probe, branch)


def test_the_ledger_counts_clean_passes_and_no_method_is_asked_about_them():
    model, method, ledger = far.build(steps=2, guidance=2.0), Asked(), []
    far.video(model, method, ledger=ledger)
    assert [row.forced for row in method.rows] == [""] * 10
    passes = [entry for entry in ledger if entry.why == "clean pass"]
    assert [(entry.unit, entry.mode, entry.active) for entry in passes] == [
        (0, Mode.RECOMPUTE, (0, 0)),
        (1, Mode.RECOMPUTE, (1, 1)),
        (2, Mode.RECOMPUTE, (3, 3)),
        (3, Mode.RECOMPUTE, (5, 5)),
    ]
    assert forwards(ledger, 2) == 2 * (10 + 4)
    assert flops(ledger, model.price) == flops(plan(model.schedule()), model.price)


@pytest.mark.parametrize(
    "method,changes",
    [(Original(), {}), (Ca2VDM("recompute"), {"guidance": 2.0, "padding": "masked", "text_length": 5})],
    ids=["kept keys", "keys computed anew, guidance"],
)
def test_the_price_of_every_row_is_torchs_count(method, changes):
    model = far.build(steps=1, **changes)
    method.check(model)
    text = model.conditioning("a fox", model.texts(["a fox"]))
    found = []
    with Counter() as flop:  # the first row's count includes what is computed once per video
        generate(model, method, text, 0, [], on_row=lambda row: found.append(flop.total))
    counts = [now - before for now, before in zip(found, [0, *found], strict=False)]
    prices = [model.price([entry])[0] for entry in plan(map(method.narrow, model.schedule()))]
    assert prices == pytest.approx(counts, rel=0.005)
    assert len({round(price) for price in prices}) > 6  # steps and clean passes of several kinds


def test_a_signal_of_the_latents_costs_what_torch_counts():
    model = far.build(steps=1)
    far.video(model, Original())
    row = model.schedule()[0]
    latents = torch.zeros(8, 16, 4, 8)
    entry = [e.__class__(**{**vars(e), "probes": ("patch_embedding 0:1",)}) for e in plan([row])]
    own = model.price(entry)[0] - model.price(plan([row]))[0]
    assert own == counted(lambda: model.probe("patch_embedding", latents, row))


@torch.inference_mode()
def test_signals_are_what_the_forward_itself_computes_first():
    model = far.build(steps=4)
    model.open(model.start(model.conditioning("a fox", model.texts(["a fox"])), 0), model.schedule()[0])
    row, latents = model.schedule()[6], torch.randn(8, 16, 4, 8)
    assert row.step == (1, 1)
    torch.testing.assert_close(model.probe("time_projection", latents, row), model._when.of(1).blocks.expand(2, -1, -1))
    torch.testing.assert_close(model.probe("time_embedding", latents, row), model._when.of(1).time.expand(2, -1))
    patches = model.transformer.patch_embedding(latents[1:3].transpose(0, 1)[None])[0].flatten(2).permute(1, 2, 0)
    torch.testing.assert_close(model.probe("patch_embedding", latents, row), patches)
    with pytest.raises(ValueError, match="unknown signal 'sound'; this backbone offers latent, patch_embedding"):
        model.probe("sound", latents, row)


def test_a_video_leaves_nothing_behind_and_a_seed_gives_the_same_video():
    model = far.build(steps=2)
    first, other = far.video(model, Original()), far.video(model, Original(), seed=1)
    assert torch.equal(far.video(model, Original()), first) and not torch.equal(other, first)
    frames = torch.cat(list(model.decode(first)))
    assert frames.shape == (29, 32, 64, 3) and frames.dtype == torch.uint8
    model.forget()
    assert not {"_past", "_text", "_when", "_rotary"} & set(vars(model))


def test_a_clean_pass_computes_only_the_keys_that_change():
    """By hand: with 3 chunks in full, a finished chunk makes the third last compressed, and the last two see less."""
    chunks = Chunks((1, 3, 3, 3, 2))
    assert [chunks.renewed(chunk) for chunk in range(4)] == [
        (range(0), range(1)),
        (range(0), range(1, 2)),
        (range(1), range(1, 3)),
        (range(1, 2), range(2, 4)),
    ]
    assert [chunks.far(chunk) for chunk in range(5)] == [0, 0, 0, 1, 2]


def test_the_parameters_are_those_of_the_class():
    model = far.build()
    assert model.parameters == sum(p.numel() for p in model.transformer.parameters())


def test_the_second_time_is_what_the_class_calls_it():
    assert second("r", [9.0, 4.0], [4.0, 0.0]) == [4.0, 0.0] and second("t-r", [9.0, 4.0], [4.0, 0.0]) == [5.0, 4.0]
    with pytest.raises(ValueError, match="deltatime_type='x', want r or t-r"):
        second("x", [1.0], [0.0])


@pytest.mark.parametrize(
    "frames,lengths", [(81, (1, 3, 3, 3, 3, 3, 3, 2)), (13, (1, 3)), (1, (1,)), (97, (1, *[3] * 8))]
)
def test_frames_are_cut_into_chunks(frames, lengths):
    assert Far(frames=frames).lengths == lengths == tuple(cut((frames + 3) // 4, Far().chunk_partition))


@pytest.mark.parametrize("chunks,frames", [(1, 1), (2, 13), (8, 81), (9, 97), (20, 229)])
def test_chunks_decide_the_frames(chunks, frames):
    assert Far(chunks=chunks).frames == frames and len(Far(chunks=chunks).lengths) == chunks


@pytest.mark.parametrize(
    "wrong,told",
    [
        (
            {"frames": 80},
            r"frames=80 does not fill the chunks, of 1, 3, 3, ... latents .* nearest that does is 81",
        ),
        ({"frames": 17}, "nearest that does is 13"),
        ({"frames": -3}, "nearest that does is 1"),
        ({"chunks": -1}, "model.chunks must be at least 0, got -1"),
        ({"chunk_partition": []}, r"model.chunk_partition wants chunks of at least 1 latent, got \[\]"),
        ({"steps": 0}, "model.steps must be at least 1, got 0"),
        ({"guidance": 0.5}, "model.guidance must be at least 1"),
        ({"shift": 0}, "model.shift must be above 0"),
        ({"height": 100}, "model.height must be a multiple of 16, got 100; nearest: 96"),
        ({"padding": "none"}, "model.padding is one of attended, masked, got 'none'"),
        ({"prefix": "a.mp4", "prefix_frames": 81}, "leaves nothing to generate in model.frames=81; want at most 73"),
        (
            {"prefix": "a.mp4", "prefix_frames": 5},
            r"not end with a chunk; the nearest that does is 1 \(all: 1, 13, ",
        ),
        ({"prefix": "a.png", "frames": 1}, "leaves nothing to generate in model.frames=1"),
    ],
)
def test_a_wrong_setting_is_refused_with_one_that_works(wrong, told):
    with pytest.raises(ValueError, match=told):
        Far(**wrong)


@pytest.mark.parametrize(
    "wrong,told",
    [
        ({"frames": 1 + 8 * 32}, "has 65 latents, and the model has positions for 64; want at most 253 frames"),
        ({"architecture": far.ARCHITECTURE | {"full_chunk_limit": 1}}, "full_chunk_limit=1, want at least 2"),
        ({"height": 16}, "below 32 x 32, one patch of a chunk in compressed form"),
    ],
)
def test_a_model_that_cannot_run_the_video_is_refused_before_it_is_loaded(wrong, told):
    with pytest.raises(ValueError, match=told):
        _ = far.plan(**wrong).depth


def test_attention_depends_on_the_difference_of_frame_numbers_only_also_to_compressed_frames():
    """So keys of a queue need no cyclic positions: those that stay are right when older ones leave."""
    model = far.AnyFlowFAR(far.FAR, far.CPU)
    model.load()
    tables = rotations(model.transformer, 16, Grid.of(model.transformer.config, 4, 8), far.CPU)
    q, k = torch.randn(2, tables[0].shape[-1], dtype=torch.complex64, generator=torch.Generator().manual_seed(0))

    def score(table, new, old):
        return ((q * tables[0][new, 0]) * (k * table[old, 0]).conj()).real.sum()

    for table in tables:
        torch.testing.assert_close(score(table, 9, 4), score(table, 14, 9), rtol=1e-4, atol=1e-4)
        assert (score(table, 9, 4) - score(table, 4, 9)).abs() > 0.1  # a number that is used again gives another sign


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A whole checkpoint in diffusers' format, and the model whose weights it holds."""
    folder, model = save_checkpoint(tmp_path_factory.mktemp("far")), far.AnyFlowFAR(far.FAR, far.CPU)
    model.load()
    shutil.rmtree(folder / "transformer")
    model.transformer.save_pretrained(folder / "transformer")
    return folder, model


def test_a_checkpoint_is_loaded_and_its_shape_is_read_from_it(checkpoint):
    folder, drawn = checkpoint
    model = far.AnyFlowFAR(
        far.replace(far.FAR, weights="pretrained", checkpoint=str(folder), architecture={}, vae={}), far.CPU
    )
    assert len(model.weights_id) > 8 and model.parameters == drawn.parameters and model.depth == 2
    model.load()
    texts = model.texts(["a fox"])
    assert texts["a fox"].shape == (1, 8, 32) and not texts["a fox"][0, -1].any()
    videos = [generate(one, Original(), one.conditioning("a fox", texts), 0, []) for one in (model, drawn)]
    assert torch.equal(*videos)


def test_a_checkpoint_of_another_model_is_refused(checkpoint):
    folder, _ = checkpoint
    kept, deeper = {"weights": "pretrained", "checkpoint": str(folder)}, far.ARCHITECTURE | {"num_layers": 3}
    with pytest.raises(WeightsError, match="holds another model than model=far: num_layers=2 instead of 3"):
        far.AnyFlowFAR(far.replace(far.FAR, **kept, architecture=deeper), far.CPU).load()
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsError, match="fetch it again with `hf download nvidia/AnyFlow-FAR-Wan"):
        _ = far.plan(**kept).weights_id


def test_bfloat16_gives_a_video_near_that_of_float32():
    ours, exact = (far.video(far.build(precision=p, steps=1, frames=17), Original()) for p in ("bf16", "fp32"))
    assert ours.dtype == torch.float32
    assert (ours - exact).abs().mean() < 0.02 * exact.abs().mean()


def test_units_of_different_lengths_are_counted_by_their_borders():
    rows = far.plan(prefix="clip.mp4", prefix_frames=9, steps=1).schedule()
    assert [row.number(row.slots.start) for row in rows if row.updating] == [2, 3, 4]
    assert [place(row) for row in rows if row.updating] == [0, 1, 2]  # without the two that were given
    assert units_of(rows) == 3 and units_of(far.plan(steps=1).schedule()) == 5
