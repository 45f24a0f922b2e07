"""A table of the memory that every method takes, in GB, predicted without a GPU.

    python -m sweep.memory [model=skyreels,magi1] [method=all] [settings ...]

`?` stands where nothing is known of a method's state. "fits" says for cards of three sizes: yes, no, or which switch
makes it fit.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from conf.schema import ConfigError, options
from engine.weights import WeightsError
from sweep import api
from sweep.peaks import CARDS, memory
from terminal import tolerate


def main(arguments: Sequence[str]) -> int:
    """Print the table, a line per method; returns 0."""
    tolerate()
    if {"-h", "--help"} & set(arguments):
        print(__doc__.strip())
        return 0
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
