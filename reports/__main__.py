"""python -m reports RESULTS: rebuild RESULTS/report from the records."""

import sys
from pathlib import Path

from reports import build
from reports.paper import print_summary
from reports.terminal_table import print_main
from store import StoreError
from terminal import tolerate

if __name__ == "__main__":
    tolerate()
    results = (sys.argv[1:] or ["results"])[0]
    try:
        report = build(results)
        print_main(results)
    except StoreError as error:
        sys.exit(str(error))
    print_summary(Path(results))
    print(f"{report / 'paper.html'}\n{report / 'index.html'}")
