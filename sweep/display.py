"""The progress of a sweep: progress bars on a terminal, plain lines in a log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Display:
    """Shows the events of sweep/make_videos.py. The time left is estimated from the finished videos.

    `failures` collects every "failed" line.
    """

    def __init__(self, console: Console, cells: Sequence[tuple[str, int]], shared: bool = False) -> None:
        """`cells`: label and number of remaining videos of each cell, in the order in which they start.

        `shared`: other processes write to the same terminal, so print plain lines instead of progress bars.
        """
        self.console, self.failures = console, list[str]()
        self._live = console.is_terminal and not shared
        self._labels, self._todo = [label for label, _ in cells], [todo for _, todo in cells]
        self._first, self._next = 0, 0  # the current cells: first, and one after the last
        self._place, self._made = 0, 0  # cell of the current video; number of finished videos
        self._seconds = dict[str, list[float]]()  # label of a cell: seconds of every video
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), "{task.fields[left]}")
        self._bars = Progress(*(TextColumn(c) if isinstance(c, str) else c for c in columns), console=console)
        add = self._bars.add_task
        self._cells, self._rows = add("cells", total=len(cells), left=""), add("", total=None, left="")
        self._videos = add("videos", total=sum(self._todo), left="")

    def __enter__(self) -> Display:
        if self._live:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._bars.stop()

    def __call__(self, *event: Any) -> None:
        """Show one event: its name, then its values."""
        kind, *values = event
        getattr(self, f"_on_{kind}")(*values)

    def begin(self, count: int = 1) -> None:
        """Start the next `count` cells."""
        self._first, self._place, self._next = self._next, self._next, self._next + count
        now = escape(self._labels[self._first]) + (f" and {count - 1} more in turn" if count > 1 else "")
        self._bars.update(self._cells, completed=self._first, description=f"cells, now {now}")

    def _on_cell(self, label: str, todo: int | None, place: int | None = None) -> None:
        """`todo`: None for a cell without videos of its own. `place`: number of the cell; None: the first one."""
        self._todo[self._first if place is None else place] = todo or 0
        self._bars.update(self._videos, total=self._made + sum(self._todo[self._first :]))
        if todo == 0:
            self.console.print(f"{label}: nothing to do, every video is in the store")

    def _on_video(self, key: str, label: str, prompt: str, rows: int, place: int | None = None) -> None:
        self._label, self._prompt = label, prompt
        self._place = self._first if place is None else place
        self._bars.reset(self._rows, total=rows, description=f"{escape(label)}: {escape(prompt[:40])}")

    def _on_row(self) -> None:
        self._bars.advance(self._rows)

    def _on_made(self, status: str, seconds: float | None) -> None:
        if seconds is not None:
            self._seconds.setdefault(self._labels[self._place], []).append(seconds)
        self._made += 1
        self._todo[self._place] = max(0, self._todo[self._place] - 1)
        self._bars.advance(self._videos)
        self._bars.update(self._videos, left=self.left())
        if not self._live:
            took = f"{status}, {seconds:.1f} s" if seconds is not None else status
            left = f" ({self.left()})" if self.left() else ""
            self.console.print(f"{self._label} {escape(self._prompt[:60])}: {took}{left}")

    def _on_failed(self, line: str) -> None:
        self.failures.append(line)

    def _on_say(self, text: str) -> None:
        self.console.print(escape(text))

    def left(self) -> str:
        """`about 3 min left`, or "" before the first video. A cell without a video counts as the mean of the others."""
        known = {label: sum(took) / len(took) for label, took in self._seconds.items()}
        if not known:
            return ""
        mean, waiting = sum(known.values()) / len(known), slice(self._first, None)
        ahead = zip(self._labels[waiting], self._todo[waiting], strict=True)
        seconds = sum(known.get(label, mean) * todo for label, todo in ahead)
        return f"about {duration(seconds)} left" if seconds else ""


def duration(seconds: float) -> str:
    """A time span as text, in at most two units.

    >>> duration(7), duration(200), duration(8000), duration(200000)
    ('7 s', '3 min', '2 h 13 min', '2 d 7 h')
    """
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
