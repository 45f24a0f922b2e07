"""`python -m store RESULTS [--verify]`."""

import argparse
import sys
from importlib import import_module

from store import Store, StoreError
from store.status import Recount, print_status
from terminal import tolerate, version


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Returns 0, or 1 if the folder does not exist or has damaged records."""
    tolerate()
    parser = argparse.ArgumentParser(
        prog="python -m store", description="list what is done, running, failed and missing"
    )
    parser.add_argument("results", nargs="?", default="results", help="results folder of run.py")
    parser.add_argument(
        "--verify", action="store_true", help="recompute checksums, seals, keys and FLOPs without any cache"
    )
    parser.add_argument("--version", action="version", version=version())
    options = parser.parse_args(arguments)
    try:
        store = Store(options.results, create=False)
        print_status(store, options.verify, _recount() if options.verify else None)
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return int(bool(store.damaged))


def _recount() -> Recount | None:
    """The function that counts FLOPs again. It needs the whole program; None if only the store is installed."""
    try:
        found: Recount = import_module("sweep.recount").recount
    except ImportError as error:
        print(f"FLOPs are not counted again: {error}", file=sys.stderr)
        return None
    return found


if __name__ == "__main__":
    sys.exit(main())
