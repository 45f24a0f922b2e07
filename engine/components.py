"""Checking a component of a checkpoint before anything is generated: its files, its tensors, its tokenizer.

Everything is refused with a WeightsError of one line that names the file and ends with `todo`, what to do about it.
Only headers are read.
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
TOKENIZERS = ("tokenizer.json", "spiece.model")  # either holds the vocabulary
_LISTED = 4  # names shown of a longer list


def read_json(path: Path, todo: str) -> dict[str, Any]:
    """The JSON object in `path`."""
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
    """The files of `folder` that hold its weights, each with the tensors that an index promises (none without one)."""
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
            raise WeightsError(f"{index} places {name} in {file!r}, which is no file beside it; {todo}")
        files.setdefault(folder / file, []).append(name)
    return dict(sorted(files.items()))


def shapes_in(files: Mapping[Path, list[str]], todo: str) -> dict[str, tuple[int, ...]] | None:
    """Names and shapes of all tensors in whole `files`; None where they are pickled, which only loading tells."""
    found: dict[str, tuple[int, ...]] = {}
    for path, promised in files.items():
        if path.suffix == ".bin":
            if not path.is_file():
                raise WeightsError(f"{path} is missing; {todo}")
            if not zipfile.is_zipfile(path):
                raise WeightsError(f"{path} ({path.stat().st_size} bytes) is cut short or no PyTorch file; {todo}")
            continue
        try:
            header = read_header(path)
        except WeightsError as error:
            raise WeightsError(f"{error}; {todo}") from None
        lost = sorted(set(promised) - set(header))
        if lost:
            raise WeightsError(f"{path} lacks {few(lost)}, which its index promises; {todo}")
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
    """Refuse tensors that are missing (but for `optional` ones), not wanted (but for `harmless` ones) or misshapen."""
    missing = sorted(set(wanted) - set(held) - set(optional))
    extra = sorted(name for name in set(held) - set(wanted) if not harmless(name))
    wrong = [f"{n} {held[n]}, want {wanted[n]}" for n in sorted(set(wanted) & set(held)) if held[n] != wanted[n]]
    faults = {"missing": missing, "not of this model": extra, "of another shape": wrong}
    if any(faults.values()):
        told = "; ".join(f"{len(names)} {what}: {few(names)}" for what, names in faults.items() if names)
        raise WeightsError(f"the weights in {place} do not fit its config.json ({told}); {todo}")


def check_tokenizer(folder: Path, todo: str) -> None:
    """Refuse a folder from which transformers would make an empty tokenizer, or none."""
    read_json(folder / "tokenizer_config.json", todo)
    vocabularies = [folder / name for name in TOKENIZERS if (folder / name).is_file()]
    if not vocabularies:
        raise WeightsError(f"{folder} has no vocabulary, neither {' nor '.join(TOKENIZERS)}; {todo}")
    for path in vocabularies:
        if path.suffix == ".json" and not isinstance(read_json(path, todo).get("model"), dict):
            raise WeightsError(f"{path} holds no tokenizer (it has no `model`); {todo}")
        if not path.stat().st_size:
            raise WeightsError(f"{path} is empty; {todo}")


def load_tokenizer(folder: Path, todo: str, limit: int) -> Any:
    """The tokenizer of `folder`; its tokens must be below `limit`, the size of the encoder's vocabulary."""
    from transformers import AutoTokenizer

    check_tokenizer(folder, todo)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        ids = tokenizer("a red fox runs", add_special_tokens=False).input_ids
    except Exception as error:  # of transformers, tokenizers or sentencepiece, of many kinds
        raise WeightsError(f"{folder} holds no readable tokenizer ({one_line(error)}); {todo}") from None
    if not ids or set(ids) == {tokenizer.unk_token_id} or max(ids) >= limit:
        raise WeightsError(f"the tokenizer in {folder} does not belong to the encoder ({limit} tokens): {ids}; {todo}")
    return tokenizer


def load_encoder(kind: Any, folder: Path, todo: str, dtype: Any) -> Any:
    """A text encoder of transformers' class `kind`, none of whose tensors was left at random."""
    try:
        model, told = kind.from_pretrained(folder, dtype=dtype, output_loading_info=True, local_files_only=True)
    except Exception as error:  # of transformers, safetensors or pickle, of many kinds
        raise WeightsError(f"{folder} holds no readable text encoder ({one_line(error)}); {todo}") from None
    lacking = sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]]))
    if lacking:
        raise WeightsError(f"the text encoder in {folder} lacks {few(lacking)}; {todo}")
    return model.eval()


def few(names: list[str]) -> str:
    """The first of `names`, and how many more there are."""
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def one_line(error: Exception) -> str:
    """The kind and the first line of an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
