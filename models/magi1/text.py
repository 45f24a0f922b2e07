"""Text for MAGI-1: cleaned captions, T5 v1.1-XXL token embeddings, and the special tokens before them.

All generated chunks have the same caption. A token before it gives the number of chunks that are still to come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.components import (
    check_tensors,
    check_tokenizer,
    load_encoder,
    load_tokenizer,
    one_line,
    read_json,
    shapes_in,
)
from engine.components import weight_files as files_of
from engine.weights import WeightsError

from .caption import clean_caption

MAX_TOKENS = 800
_TIED = "encoder.embed_tokens.weight"  # the same table as shared.weight
_NAMED = {"trans": 0, "hq": 1, "static": 2, "dynamic": 3, "borderness": 4, "3d": 15, "2d": 16}
_ORDER = ("static", "dynamic", "borderness", "hq", "3d", "2d", "duration")  # each is put before the previous ones
_DURATIONS = range(7, 15)  # rows for 1, 2, ... 8 or more chunks to come, the chunk itself included


@dataclass(frozen=True)
class SpecialTokens:
    """Learned embeddings for quality, style and duration, float32."""

    other: Tensor  # (17 or more, caption channels)
    caption: Tensor  # (1, caption channels)
    logo: Tensor  # (1, caption channels)

    @classmethod
    def of(cls, other: Tensor, caption: Tensor, logo: Tensor) -> SpecialTokens:
        """The tokens from raw arrays, rounded to float16 as in the released model. Raises ValueError for a shape."""
        if other.ndim != 2 or len(other) < 17:
            raise ValueError(f"other_tokens has shape {tuple(other.shape)}; want (17 or more, caption channels)")
        return cls(*(raw.to(torch.float16).float() for raw in (other, caption, logo)))

    @classmethod
    def load(cls, path: Path) -> SpecialTokens:
        """Read special_tokens.npz of the official repository.

        Raises:
            WeightsError: the file is missing or damaged; the message says where to get it.
        """
        path = Path(path)
        if not path.is_file():
            raise WeightsError(
                f"no special tokens at {path}; copy example/assets/special_tokens.npz of SandAI-org/MAGI-1 there"
            )
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = [archive[name] for name in ("other_tokens", "caption_token", "logo_token")]
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise WeightsError(f"{path} does not hold MAGI-1's special tokens ({error}); copy it again") from error
        return cls.of(*(torch.from_numpy(np.asarray(array, dtype=np.float64)) for array in arrays))

    def row(self, name: str) -> Tensor:
        """One token by name: trans, hq, static, dynamic, borderness, 3d or 2d, (caption channels,)."""
        return self.other[_NAMED[name]]

    def duration(self, chunks_left: int) -> Tensor:
        """The token for `chunks_left` chunks to come, the present one included; 8 means 8 or more."""
        return self.other[_DURATIONS[min(chunks_left, len(_DURATIONS)) - 1]]


def chunk_texts(
    caption: Tensor, tokens: SpecialTokens | None, chunks: int, prepend: Sequence[str] = ("hq", "duration")
) -> list[Tensor] | None:
    """The text of each of `chunks` generated chunks, (L, caption channels), at most 800 tokens.

    Args:
        caption: token embeddings of the prompt without padding, (L, caption channels). An empty one means no prompt.
        tokens: the special tokens; may be None if `prepend` is empty.
        prepend: the tokens to put before the caption; "duration" counts the chunks down.

    Returns:
        One text per chunk. None without a prompt: the learned null caption is then used.

    Raises:
        ValueError: a name in `prepend` is unknown, or `tokens` is None but needed.
    """
    unknown = set(prepend) - set(_ORDER)
    if unknown:
        raise ValueError(f"unknown special tokens {sorted(unknown)}; choose from {', '.join(_ORDER)}")
    if len(caption) == 0:
        return None
    if prepend and tokens is None:
        raise ValueError(f"special tokens {list(prepend)} are wanted, but none are loaded; give tokens or prepend=()")
    texts = []
    for i in range(chunks):
        text = caption.float()
        for name in (name for name in _ORDER if name in prepend):
            assert tokens is not None
            token = tokens.duration(chunks - i) if name == "duration" else tokens.row(name)
            text = torch.cat([token.to(text.device)[None], text])[:MAX_TOKENS]
        texts.append(text)
    return texts


def negative_text(null: Tensor, tokens: SpecialTokens) -> Tensor:
    """The null caption after the tokens for unwanted content: borders, transitions, logos, captions.

    The result has the length of `null` (tokens, caption channels).
    """
    front = (tokens.row("borderness")[None], tokens.row("trans")[None], tokens.logo, tokens.caption)
    return torch.cat([*(token.to(null) for token in front), null])[: len(null)]


def check_encoder(folder: Path) -> None:
    """Check the files, tensors and tokenizer of a T5 folder. Tensors of pickled weights are checked when loaded.

    Raises:
        WeightsError: something is missing, cut short or of another model; the message names it.
    """
    if not (folder / "config.json").is_file():
        raise WeightsError(f"no T5 encoder in {folder}: {folder / 'config.json'} is missing; {_todo(folder)}")
    entries = read_json(folder / "config.json", _todo(folder))
    held = shapes_in(files_of(folder, "model", _todo(folder)), _todo(folder))
    check_tokenizer(folder, _todo(folder))
    if held is None:
        return
    from transformers import T5Config, T5EncoderModel

    try:
        with torch.device("meta"):
            model = T5EncoderModel(T5Config.from_dict(entries))
    except Exception as error:  # a constructor raises many kinds
        place = folder / "config.json"
        raise WeightsError(f"{place} describes no T5 ({one_line(error)}); {_todo(folder)}") from None
    if _TIED in held:
        held.setdefault("shared.weight", held[_TIED])
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    check_tensors(folder, held, wanted, _todo(folder), (_TIED,), lambda n: n.startswith(("decoder.", "lm_head.")))


def _todo(folder: Path) -> str:
    return f"run: hf download DeepFloyd/t5-v1_1-xxl --local-dir {folder}"


class TextEncoder:
    """The encoder of T5 v1.1-XXL (DeepFloyd layout), of the library transformers.

    Args:
        folder: holds config.json, spiece.model and the weights.
        device: the device; the encoder takes 19 GB in float32.

    Raises:
        WeightsError: a file is missing or broken.
    """

    def __init__(self, folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> None:
        folder = Path(folder)
        check_encoder(folder)
        from transformers import T5EncoderModel

        self.model = load_encoder(T5EncoderModel, folder, _todo(folder), dtype).to(device)
        self.tokenizer = load_tokenizer(folder, _todo(folder), self.model.config.vocab_size)

    @torch.no_grad()
    def encode(self, prompts: Iterable[str]) -> Iterator[Tensor]:
        """Prompts -> their token embeddings without padding, each (L, caption channels), float32, L at most 800."""
        for prompt in prompts:
            cleaned = clean_caption(clean_caption(prompt))  # twice, as in training
            batch = self.tokenizer(
                cleaned, max_length=MAX_TOKENS, padding="max_length", truncation=True, return_tensors="pt"
            ).to(self.model.device)
            states = self.model(**batch).last_hidden_state[0]
            yield states[batch["attention_mask"][0].bool()].float()
