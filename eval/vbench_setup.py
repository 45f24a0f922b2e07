"""The isolated environment that runs VBench, and the weights that its dimensions need.

VBench 0.1.5 requires transformers 4.33.2, numpy 1 and Python 3.11 or older, so it needs another environment than this
project. The environment is built in $SCOPE_VBENCH (default ~/.cache/scope-harness/vbench). It is complete when
`installed.json` exists, which is written last. Weights stay where VBench searches them: $VBENCH_CACHE_DIR, $TORCH_HOME,
$HF_HOME.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eval.vbench_total import DIMENSIONS, FACTS, VBenchError
from store import writing

RUNNER = Path(__file__).with_name("vbench_runner.py")
PYTHONS = ("3.11", "3.10", "3.9")  # the pinned tokenizers has no wheel for later versions
NEEDED_GB = 7  # GB of disk space, mostly for torch's CUDA libraries


def home() -> Path:
    """The folder of the isolated environment."""
    return Path(os.environ.get("SCOPE_VBENCH") or Path.home() / ".cache/scope-harness/vbench").expanduser()


def caches() -> dict[str, Path]:
    """The folders of weights of VBench, torch.hub and the Hugging Face libraries: {"vbench", "torch", "hf"}."""
    cache = Path.home() / ".cache"
    named = {"vbench": "VBENCH_CACHE_DIR", "torch": "TORCH_HOME", "hf": "HF_HOME"}
    default = {"vbench": cache / "vbench", "torch": cache / "torch", "hf": cache / "huggingface"}
    return {name: Path(os.environ.get(variable) or default[name]).expanduser() for name, variable in named.items()}


def interpreter() -> Path:
    """The Python of the isolated environment. VBenchError if `setup` has not finished with these requirements."""
    marker = home() / "installed.json"
    if not marker.exists():
        raise VBenchError(
            f"VBench is not installed in {home()}; run `python -m eval.vbench setup` "
            f"(about {NEEDED_GB} GB) or set SCOPE_VBENCH to the folder of a finished setup"
        )
    if json.loads(marker.read_text())["requirements"] != FACTS["requirements"]:
        raise VBenchError(f"{home()} was set up with other requirements; run `python -m eval.vbench setup` again")
    return home() / "venv/bin/python"


def full_info() -> Path:
    """VBench's own list of prompts, in the installed package."""
    interpreter()
    return next((home() / "venv/lib").glob("python3*/site-packages/vbench/VBench_full_info.json"))


def child_environment() -> dict[str, str]:
    """The environment variables of a process in the isolated environment: our caches, and no downloads."""
    places = caches()
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return (
        kept
        | offline
        | {"VBENCH_CACHE_DIR": str(places["vbench"]), "TORCH_HOME": str(places["torch"]), "HF_HOME": str(places["hf"])}
    )


def runner(argument: str | Path) -> list[str]:
    """The command that runs `vbench_runner.py` in the isolated environment.

    -I removes the script's folder from the path, because it has our `vbench.py`, which would hide the package.
    """
    return [str(interpreter()), "-I", str(RUNNER), str(argument)]


def probe() -> dict:
    """The state of the isolated interpreter: {"python", "versions", "modules", "cuda"}."""
    done = subprocess.run(runner("probe"), capture_output=True, text=True, check=False, env=child_environment())
    if done.returncode:
        raise VBenchError(
            f"the environment in {home()} is broken: {_tail(done.stderr)}; "
            "delete the folder and run `python -m eval.vbench setup`"
        )
    return json.loads(done.stdout.splitlines()[-1])


def setup() -> dict:
    """Build the isolated environment if it does not exist; returns its `probe`. VBenchError if it cannot be built."""
    place, marker = home(), home() / "installed.json"
    place.mkdir(parents=True, exist_ok=True)
    with open(place / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second setup waits and then finds it finished
        try:
            interpreter()
        except VBenchError:
            marker.unlink(missing_ok=True)
            shutil.rmtree(place / "venv", ignore_errors=True)
            _build(place / "venv")
            with writing(marker) as draft:
                draft.write_text(json.dumps({"requirements": FACTS["requirements"], "version": FACTS["version"]}))
        found = probe()
        _place_copies()
    return found


def _build(venv: Path) -> None:
    free = shutil.disk_usage(venv.parent).free / 1e9
    if free < NEEDED_GB:
        raise VBenchError(f"{venv.parent} has {free:.1f} GB free, but VBench needs {NEEDED_GB}; set SCOPE_VBENCH")
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv:
        create = [uv, "venv", "--python", PYTHONS[0], str(venv)]
        install = [uv, "pip", "install", "--python", str(venv / "bin/python")]
    else:
        create = [_old_python(), "-m", "venv", str(venv)]
        install = [str(venv / "bin/python"), "-m", "pip", "install"]
    for command in (create, install + FACTS["requirements"]):
        print("running", " ".join(command), flush=True)
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, env=child_environment())
        if done.returncode:
            raise VBenchError(
                f"`{' '.join(command[:4])} …` failed: {_tail(done.stderr)}. Nothing was installed; "
                "correct the cause and run setup again"
            )


def _old_python() -> str:
    for version in PYTHONS:
        if path := shutil.which(f"python{version}"):
            return path
    raise VBenchError(f"VBench needs Python {' or '.join(PYTHONS)}; install one of these or uv, none is on the PATH")


def _place_copies() -> None:
    """Copy CLIP's vocabulary (from openai-clip) to where ViCLIP searches it, and DINO to where torch.hub does."""
    here = examine()
    bpe, dino, hub = here["bpe"], here["dino"], here["dino_hub"]
    pairs = [(full_info().parents[1] / "clip" / bpe.path.name, bpe.path)]
    pairs += [(dino.path, hub.path)] if not dino.problem else []
    for source, target in pairs:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with writing(target) as draft:
                shutil.copyfile(source, draft)


@dataclass(frozen=True)
class Weight:
    """A file that a dimension needs; `problem` is empty if the file exists and is complete."""

    name: str
    path: Path
    size: int | None  # expected bytes
    problem: str
    verified: str  # how it was verified: "name", "size", "sha256" or "sha256 prefix"
    source: str

    def __str__(self) -> str:
        amount = f"{human(self.size)}, " if self.size else ""
        return f"{self.path.name} ({amount}{self.problem}; from {self.source}; to {self.path})"


def examine(hashes: bool = False, places: Mapping[str, Path] | None = None) -> dict[str, Weight]:
    """Every weight file by its short name. Sizes are checked, and with `hashes` also each known sha256."""
    return {name: _examine(fact, places or caches(), hashes) for name, fact in FACTS["weights"].items()}


def lacking(weights: Mapping[str, Weight], modules: Mapping[str, bool], protocol: str) -> dict[str, list[str]]:
    """What is missing for each dimension under `protocol`; an empty list if it can be scored."""
    lists: dict[str, list[str]] = {}
    for dimension, fact in DIMENSIONS.items():
        wanted = fact.get("modules", []) + (fact.get("long_modules", []) if protocol == "long" else [])
        python = [f"{name} (Python package; {FACTS['modules'][name]})" for name in wanted if not modules.get(name)]
        lists[dimension] = python + [str(weights[name]) for name in fact["weights"] if weights[name].problem]
    return lists


def short(items: list[str]) -> str:
    """The items of `lacking` without sources and paths: the names and sizes."""
    return ", ".join(item.split("; ")[0].replace(", missing", "") + ")" for item in items)


def human(size: int | None) -> str:
    """A number of bytes as text: 4.5 GB, 344 MB, 4 kB, or - if it is unknown."""
    if size is None:
        return "-"
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}" if unit == "GB" else f"{size / scale:.0f} {unit}"
    return f"{size / 1e3:.0f} kB"


def _examine(fact: dict, places: Mapping[str, Path], hashes: bool) -> Weight:
    pattern, digest = fact["path"].format(**places), fact.get("sha256", "")
    path = _first(pattern)
    problem, verified = "", "name"
    if not path.is_file():
        problem = "missing"
    elif fact["bytes"] is not None:
        size, verified = path.stat().st_size, "size"
        if size != fact["bytes"]:
            problem = f"damaged: {size:,} bytes of {fact['bytes']:,}"
        elif hashes and digest:
            with open(path, "rb") as file:
                whole = hashlib.file_digest(file, "sha256").hexdigest().startswith(digest)
            problem = "" if whole else f"damaged: its sha256 does not start with {digest[:12]}"
            verified = "sha256" if len(digest) == 64 else "sha256 prefix"
    source = fact["url"].format(**places)
    return Weight(path.name, path, fact["bytes"], problem, verified, source)


def _first(pattern: str) -> Path:
    """The first file that a pattern with one * matches, or the pattern itself."""
    if "*" not in pattern:
        return Path(pattern)
    before, after = pattern.split("*")
    return next(iter(sorted(Path(before).glob("*" + after))), Path(pattern))


def _tail(text: str, lines: int = 3) -> str:
    return " | ".join(text.strip().splitlines()[-lines:])[-400:] or "it printed no error message"
