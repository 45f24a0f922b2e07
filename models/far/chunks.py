"""How a video is cut into chunks, and what each chunk attends to."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Chunks:
    """The chunks of a video, in latent slots.

    A chunk attends to itself, to the `limit` - 1 chunks before it in full, and to all earlier ones in compressed form.
    """

    lengths: tuple[int, ...]
    limit: int = 3  # raising it: more chunks are seen in full; slower, more memory

    @property
    def count(self) -> int:
        return len(self.lengths)

    @property
    def borders(self) -> tuple[int, ...]:
        """The first slot of every chunk."""
        return (0, *accumulate(self.lengths[:-1]))

    def slots(self, first: int, stop: int | None = None) -> range:
        """The slots of the chunks from `first` up to but without `stop`; of `first` alone without `stop`."""
        stop = first + 1 if stop is None else stop
        return range(sum(self.lengths[:first]), sum(self.lengths[:stop]))

    def far(self, chunk: int) -> int:
        """The number of chunks, from the first, that `chunk` sees in compressed form."""
        return max(0, chunk - (self.limit - 1))

    def renewed(self, chunk: int, whole: bool = False) -> tuple[range, range]:
        """What the clean pass after `chunk` computes: chunks in compressed form, and chunks in full.

        `whole`: all of them, as if no key had been kept.

        As soon as a chunk is compressed, the chunks in full after it attend to other keys than before, so all of them
        are computed again. Keys of compressed chunks never change.
        """
        far = self.far(chunk + 1)
        if whole:
            return range(far), range(far, chunk + 1)
        return range(max(0, far - 1), far), range(far if far else chunk, chunk + 1)


def cut(latents: int, trained: list[int]) -> list[int]:
    """The chunks of a video of `latents` slots: those of `trained`, or its first chunk and then chunks of its second.

    Raises ValueError if the last chunk would not be filled.

    >>> cut(7, [1, 3, 3, 2]), cut(9, [1, 3, 3, 2]), cut(13, [1, 3, 3, 2])
    ([1, 3, 3], [1, 3, 3, 2], [1, 3, 3, 3, 3])
    """
    if latents == sum(trained):
        return list(trained)
    first, later = trained[0], trained[min(1, len(trained) - 1)]
    more, left = divmod(latents - first, later)
    if more < 0 or left:
        raise ValueError(f"{latents} latents do not fill chunks of {first}, {later}, {later}, ...")
    return [first] + [later] * more
