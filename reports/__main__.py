"""python -m reports RESULTS: rebuild RESULTS/report from the records."""

import sys

from reports import build, read
from reports.paper import print_summary
from reports.terminal_table import print_main
from store import StoreError
from terminal import tolerate

if __name__ == "__main__":
    tolerate()
    results = (sys.argv[1:] or ["results"])[0]
    try:
        report = read(results)
    except StoreError as error:
        sys.exit(str(error))
    folder = build(report)
    print_main(report)
    print_summary(report)
    print(f"{folder / 'paper.html'}\n{folder / 'index.html'}")
