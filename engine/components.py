"""Checks of a checkpoint's components before a video is generated: files, tensors, tokenizer.

A fault raises WeightsError with one line: it names the file and ends with `todo`, the advice what to do.
Of weight files only the headers are read.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from engine.weights import WeightsError, read_header

Shapes = Mapping[str, tuple[int, ...]]
FLOATS = ("F64", "F32", "F16", "BF16")
TOKENIZERS = ("tokenizer.json", "spiece.model")  # each of them holds the vocabulary; one is enough
_LISTED = 4  # names shown of a longer list


def read_json(path: Path, todo: str) -> dict[str, Any]:
    """The JSON object in `path`. Raises WeightsError if the file is missing or holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing; {todo}") from None
    except (ValueError, OSError) as error:
        raise WeightsError(f"{path} is not readable JSON ({one_line(error)}); {todo}") from None
    if not isinstance(found, dict):
        raise WeightsError(f"{path} holds a JSON {type(found).__name__}, want an object; {todo}")
    return found


def weight_files(folder: Path, stem: str, todo: str) -> dict[Path, list[str]]:
    """The weight files of `folder`: {file: names of its tensors by the index}; no names if there is no index."""
    suffix = "bin" if not list(folder.glob("*.safetensors*")) and list(folder.glob("*.bin*")) else "safetensors"
    stem = "pytorch_model" if suffix == "bin" else stem
    index = folder / f"{stem}.{suffix}.index.json"
    if not index.is_file():
        return {folder / f"{stem}.{suffix}": []}
    where = read_json(index, todo).get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(file, str) for file in where.values()):
        raise WeightsError(f"{index} has no weight_map from tensors to files; {todo}")
    files: dict[Path, list[str]] = {}
    for name, file in where.items():
        if Path(file).name != file:
            raise WeightsError(f"{index} places {name} in {file!r}, want the name of a file in the same folder; {todo}")
        files.setdefault(folder / file, []).append(name)
    return dict(sorted(files.items()))


def shapes_in(files: Mapping[Path, list[str]], todo: str) -> dict[str, tuple[int, ...]] | None:
    """{name: shape} of all tensors in `files`. None for pickled files: their shapes are known only after loading.

    Raises WeightsError if a file is missing, cut short, lacks a tensor of the index, or has no float tensors.
    """
    found: dict[str, tuple[int, ...]] = {}
    for path, promised in files.items():
        if path.suffix == ".bin":
            if not path.is_file():
                raise WeightsError(f"{path} is missing; {todo}")
            if not zipfile.is_zipfile(path):
                raise WeightsError(f"{path} ({path.stat().st_size} bytes) is cut short or not a PyTorch file; {todo}")
            continue
        try:
            header = read_header(path)
        except WeightsError as error:
            raise WeightsError(f"{error}; {todo}") from None
        lost = sorted(set(promised) - set(header))
        if lost:
            raise WeightsError(f"{path} lacks {few(lost)}, which its index lists; {todo}")
        odd = sorted(name for name, entry in header.items() if entry.get("dtype") not in FLOATS)
        if odd:
            kinds = ", ".join(sorted({str(header[name].get("dtype")) for name in odd}))
            raise WeightsError(f"{path} holds {kinds} at {few(odd)}, want one of {', '.join(FLOATS)}; {todo}")
        found |= {name: tuple(header[name]["shape"]) for name in promised or header}
    return None if any(path.suffix == ".bin" for path in files) else found


def check_tensors(
    place: Path,
    held: Shapes,
    wanted: Shapes,
    todo: str,
    optional: Collection[str] = (),
    harmless: Callable[[str], bool] = lambda name: False,
) -> None:
    """Raise WeightsError for tensors that are missing, not wanted, or of another shape than wanted.

    Tensors in `optional` may be missing. Tensors that are not wanted are accepted if `harmless(name)` is true.
    """
    missing = sorted(set(wanted) - set(held) - set(optional))
    extra = sorted(name for name in set(held) - set(wanted) if not harmless(name))
    wrong = [f"{n} {held[n]}, want {wanted[n]}" for n in sorted(set(wanted) & set(held)) if held[n] != wanted[n]]
    faults = {"missing": missing, "not of this model": extra, "of another shape": wrong}
    if any(faults.values()):
        told = "; ".join(f"{len(names)} {what}: {few(names)}" for what, names in faults.items() if names)
        raise WeightsError(f"the weights in {place} do not fit its config.json ({told}); {todo}")


def check_tokenizer(folder: Path, todo: str) -> None:
    """Raise WeightsError if transformers would make no tokenizer from `folder`, or an empty one."""
    read_json(folder / "tokenizer_config.json", todo)
    vocabularies = [folder / name for name in TOKENIZERS if (folder / name).is_file()]
    if not vocabularies:
        raise WeightsError(f"{folder} has no vocabulary, neither {' nor '.join(TOKENIZERS)}; {todo}")
    for path in vocabularies:
        if path.suffix == ".json" and not isinstance(read_json(path, todo).get("model"), dict):
            raise WeightsError(f"{path} has no key `model`, so it is not a tokenizer file; {todo}")
        if not path.stat().st_size:
            raise WeightsError(f"{path} is empty; {todo}")


def load_tokenizer(folder: Path, todo: str, limit: int) -> Any:
    """The tokenizer in `folder`. Its token ids must be below `limit`, the size of the encoder's vocabulary."""
    from transformers import AutoTokenizer

    check_tokenizer(folder, todo)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        ids = tokenizer("a red fox runs", add_special_tokens=False).input_ids
    except Exception as error:  # transformers, tokenizers and sentencepiece raise many kinds
        raise WeightsError(f"{folder} holds no readable tokenizer ({one_line(error)}); {todo}") from None
    if not ids or set(ids) == {tokenizer.unk_token_id} or max(ids) >= limit:
        raise WeightsError(
            f"the tokenizer in {folder} gives the token ids {ids}, want known ids below {limit}, the size of the "
            f"encoder's vocabulary; {todo}"
        )
    return tokenizer


def load_encoder(kind: Any, folder: Path, todo: str, dtype: Any) -> Any:
    """The text encoder in `folder`, of transformers' class `kind`. Raises WeightsError if a tensor is missing."""
    try:
        model, told = kind.from_pretrained(folder, dtype=dtype, output_loading_info=True, local_files_only=True)
    except Exception as error:  # transformers, safetensors and pickle raise many kinds
        raise WeightsError(f"{folder} holds no readable text encoder ({one_line(error)}); {todo}") from None
    lacking = sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]]))
    if lacking:
        raise WeightsError(f"the text encoder in {folder} lacks {few(lacking)}; {todo}")
    return model.eval()


def few(names: list[str]) -> str:
    """The first of `names`, and the number of the others."""
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def one_line(error: Exception) -> str:
    """The kind and the first line of an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
