"""A speedup is over the Original that a record names, and over no other."""

import json
import math

import pytest

from reports import tables
from reports.records import load
from store import Store
from tests.synthetic import CELLS, make_store


def test_a_speedup_is_over_the_original_that_the_record_names_or_blank(tmp_path):
    """The named Originals failed: those of the plain setting are never put in their place."""
    cells = {cell: CELLS[cell] for cell in (("original", None), ("scope", "fast"))}
    make_store(tmp_path, cells=cells, videos=False)
    make_store(tmp_path, cells=cells, videos=False, changed={"model.frames": 17}, frames=17)
    for record in Store(tmp_path).records():
        if record.run["method"] == "original" and record.run["frames"] == 17:
            told = record.run | {"status": "failed", "reason": "out of memory"}
            (record.path / "run.json").write_text(json.dumps(told))
    main = tables.main(load(tmp_path)).set_index("name")
    line = main.loc["SCOPE fast (frames=17)"]
    assert line["videos"] == 3 and math.isnan(line["speedup"]) and math.isnan(line["flops_speedup"])
    assert "speedup: the Original that the records name is missing, failed or invalid" in line["missing"]
    assert main.loc["SCOPE fast", "flops_speedup"] == pytest.approx(1 / 0.28)
