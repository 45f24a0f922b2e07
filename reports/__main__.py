"""python -m reports RESULTS: rebuild RESULTS/report from the records."""

import sys
from pathlib import Path

from reports import build
from reports.records import load
from reports.tables import main, print_main
from reports.verdicts import judge, summary
from store import StoreError

if __name__ == "__main__":
    results = (sys.argv[1:] or ["results"])[0]
    try:
        report = build(results)
        print_main(results)
    except StoreError as error:
        sys.exit(str(error))
    study = load(Path(results))
    print(f"\n{summary(judge(study, main(study)))}\n{report / 'paper.html'}\n{report / 'index.html'}")
