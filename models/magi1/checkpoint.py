"""Weights of MAGI-1 in the official layout. Names and shapes are checked first, then the files are memory-mapped.

    FOLDER/inference_weight[.distill]/model.safetensors
    FOLDER/inference_weight[.distill]/model.safetensors.index.json + shards

The model is built on the meta device, and the mapped tensors become its parameters. So the host memory holds at most
one copy of the weights while they are copied to the device.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from engine.components import FLOATS

from .config import ModelConfig
from .dit import Magi1DiT, stays_float32
from .embed import OnePlusLayerNorm
from .places import INDEX, SINGLE, CheckpointError, locate

_FP8 = ("F8_E4M3", "F8_E5M2")  # refused below with a message of their own
_LISTED = 6  # names shown of a longer list


def shards(place: Path) -> dict[Path, list[str]]:
    """The weight files of a folder: {file: names of its tensors by the index}; no names if there is no index.

    Raises:
        CheckpointError: the index is damaged, or a shard is missing.
    """
    if not (place / INDEX).is_file():
        return {place / SINGLE: []}
    try:
        where = json.loads((place / INDEX).read_text())["weight_map"]
        files: dict[Path, list[str]] = {}
        for name, file in where.items():
            files.setdefault(place / Path(file).name, []).append(name)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{place / INDEX} is not an index of shards ({error!r}); download it again") from error
    if not files:
        raise CheckpointError(f"{place / INDEX} is not an index of shards (it is empty); download it again")
    absent = sorted(path.name for path in files if not path.is_file())
    if absent:
        packed = [name for name in absent if (place / f"{name}.zst").is_file()]
        todo = f"unpack with: zstd -d {packed[0]}.zst" if packed else "download them again"
        raise CheckpointError(f"{len(absent)} of {len(files)} shards are missing in {place}: {_few(absent)}; {todo}")
    return files


def check(shapes: Mapping[str, tuple[int, ...]], files: Mapping[Path, list[str]]) -> None:
    """Compare the names and shapes in `files` (see `shards`) with the wanted `shapes`. Reads headers only.

    Raises:
        CheckpointError: it lists tensors that are missing, unexpected or of another shape.
    """
    held: dict[str, tuple[int, ...]] = {}
    place = next(iter(files)).parent
    for path, names in files.items():
        with _opened(path) as file:
            stored = set(file.keys())
            lost = sorted(set(names) - stored)
            if lost:
                raise CheckpointError(f"{path} lacks {_few(lost)}, which its index lists; download it again")
            held |= {name: tuple(file.get_slice(name).get_shape()) for name in names or stored}
            odd = sorted(n for n in shapes.keys() & stored if file.get_slice(n).get_dtype() not in (*FLOATS, *_FP8))
            if odd:
                raise CheckpointError(f"{path} holds no floating point numbers at {_few(odd)}; download it again")
    missing, unexpected = sorted(set(shapes) - set(held)), sorted(set(held) - set(shapes))
    if any(name.endswith("weight_scale") for name in unexpected):
        raise CheckpointError(f"{place} holds fp8 weights, which are not supported; give the bfloat16 model")
    wrong = [f"{n} {held[n]}, want {shapes[n]}" for n in sorted(set(shapes) & set(held)) if held[n] != tuple(shapes[n])]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
    if any(faults.values()):
        told = "; ".join(f"{len(names)} {what}: {_few(names)}" for what, names in faults.items() if names)
        raise CheckpointError(f"{place} is not this model ({told}); check that folder and model config belong together")


def read(files: Mapping[Path, list[str]]) -> Iterator[tuple[str, Tensor]]:
    """Every (name, tensor) of checked files, memory-mapped."""
    for path, names in files.items():
        with _opened(path) as file:
            for name in names or sorted(file.keys()):
                yield name, file.get_tensor(name)


def some(files: Iterable[Path], wanted: Set[str]) -> Iterator[tuple[str, Tensor]]:
    """The (name, tensor) of those of `wanted` that `files` hold. Nothing else is read."""
    for path in files:
        with _opened(path) as file:
            for name in sorted(wanted & set(file.keys())):
                yield name, file.get_tensor(name)


def load_dit(
    config: ModelConfig, folder: Path, distill: bool, device: str | torch.device = "cpu", proj_precision: str = "fp32"
) -> Magi1DiT:
    """The transformer with the weights of `folder`, on `device`, in evaluation mode.

    Raises:
        CheckpointError: see `locate`, `shards` and `check`.
    """
    files = shards(locate(folder, distill))
    model = empty_dit(config, proj_precision)
    check({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, files)
    take(model, read(files), partial(kept_as, dtype=config.dtype), device)
    return model


def empty_dit(config: ModelConfig, proj_precision: str = "fp32", reference: bool = False) -> Magi1DiT:
    """The transformer on the meta device: its weights have dtypes but no memory. In evaluation mode."""
    with torch.device("meta"):
        model = Magi1DiT(config, proj_precision, reference).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(kept_as(name, config.dtype))
    return model


def kept_as(name: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype of the parameter `name` if hidden states have `dtype`."""
    return torch.float32 if stays_float32(name) else dtype


def take(
    model: nn.Module,
    tensors: Iterable[tuple[str, Tensor]],
    dtype_of: Callable[[str], torch.dtype],
    device: str | torch.device,
) -> None:
    """Replace the parameters of a `model` on the meta device by `tensors`, one at a time."""
    for name, tensor in tensors:
        owner, _, leaf = name.rpartition(".")
        parameter = nn.Parameter(tensor.to(device=device, dtype=dtype_of(name)), requires_grad=False)
        setattr(model.get_submodule(owner), leaf, parameter)


def random_dit(
    config: ModelConfig, seed: int = 0, device: str | torch.device = "cpu", proj_precision: str = "fp32"
) -> Magi1DiT:
    """The transformer with seeded random weights, to measure time, memory and FLOPs, but not quality."""
    model = empty_dit(config, proj_precision)
    generator = torch.Generator(device).manual_seed(seed)
    take(model, _drawn(model, generator, config.dtype), partial(kept_as, dtype=config.dtype), device)
    return model


def initialise(model: Magi1DiT, seed: int = 0) -> None:
    """Set initial weights for training: branch outputs of unit scale, a velocity near zero."""
    generator = torch.Generator(model.device).manual_seed(seed)
    with torch.no_grad():
        for name, tensor in _drawn(model, generator, torch.float32):
            model.get_parameter(name).copy_(tensor)
        model.final_linear.linear.weight.mul_(0.1)


def _drawn(model: nn.Module, generator: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    device = generator.device
    for name, parameter in model.named_parameters():
        owner = model.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, nn.LayerNorm):
            one = name.endswith("weight") and not isinstance(owner, OnePlusLayerNorm)
            yield name, torch.full(parameter.shape, float(one), device=device)
        elif name == "rope.bands":
            count = len(parameter)
            yield name, 10_000.0 ** (-torch.arange(count, dtype=torch.float32, device=device) / count)
        elif parameter.ndim == 1:
            yield name, torch.zeros(parameter.shape, device=device)
        else:
            drawn = torch.empty(parameter.shape, device=device, dtype=torch.float32 if stays_float32(name) else dtype)
            yield name, drawn.normal_(std=parameter[0].numel() ** -0.5, generator=generator)


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; download it again") from error
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size
        raise CheckpointError(
            f"{path} ({size} bytes) is cut off or not a safetensors file ({error}); download it again"
        ) from error


def _few(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
