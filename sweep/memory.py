"""A table of the memory that every method takes: `python -m sweep.memory model=skyreels,magi1 method=all`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from conf.schema import ConfigError, options
from engine.weights import WeightsError
from sweep import api
from sweep.peaks import CARDS, memory


def main(arguments: Sequence[str]) -> int:
    """`python -m sweep.memory model=skyreels,magi1 method=all`: a table of GB, a line per method."""
    given = dict(word.partition("=")[::2] for word in arguments)
    rest = [word for word in arguments if not word.startswith(("model=", "method="))]
    methods = given.get("method", "all")
    names = options("method") if methods == "all" else methods.split(",")
    columns = (
        "model",
        "method",
        "text encoder",
        "loading",
        "denoising",
        "state",
        "decoding",
        *(f"{c} GB" for c in CARDS),
    )
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for model in given.get("model", "skyreels,magi1").split(","):
        for name in names:
            try:
                cell = api.cell_of(f"model={model}", f"method={name}", *rest)
            except (ConfigError, WeightsError) as error:
                print(f"| {model} | {name} | refused: {str(error).splitlines()[0]} |{' |' * (len(columns) - 3)}")
                continue
            told = memory(cell.model, cell.method).told()
            numbers = [told[k] for k in ("encoding", "loading", "denoising", "state", "decoding")]
            cells = ["?" if number is None else f"{number:.2f}" for number in numbers]
            print(f"| {model} | {name} | {' | '.join([*cells, *told['fits'].values()])} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
