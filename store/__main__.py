"""`python -m store RESULTS [--verify]`."""

import argparse
import sys

from store import Store, StoreError
from store.status import print_status


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 1 for a folder that is none or holds something damaged."""
    parser = argparse.ArgumentParser(prog="python -m store", description="what is done, running, failed and missing")
    parser.add_argument("results", nargs="?", default="results", help="the folder that run.py wrote to")
    parser.add_argument("--verify", action="store_true", help="compare every file with its checksum, trusting nothing")
    options = parser.parse_args(arguments)
    try:
        store = Store(options.results, create=False)
        print_status(store, options.verify)
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return int(bool(store.damaged))


if __name__ == "__main__":
    sys.exit(main())
