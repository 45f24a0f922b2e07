"""Papers that print different numbers for one method on one model stand in a table, with settings and sources."""

import pandas as pd
import pytest

from reports import build, disagreements, published, read
from tests.synthetic import CELLS, make_store


@pytest.fixture(scope="module")
def table():
    return disagreements.table().set_index(["model", "row", "metric"])


def test_each_line_has_the_printed_numbers_of_every_paper(table):
    line = table.loc["skyreels", "FlowCache-fast", "lpips"]
    assert [line[paper] for paper in ("SCOPE", "FlowCache", "MotionCache", "ARCache")] == [
        "0.2441",
        "0.1467",
        "0.1634",
        "",
    ]
    assert line["apart"] == pytest.approx(0.2441 / 0.1467)
    assert table.loc["magi", "Original", "time_s"]["apart"] == pytest.approx(2873 / 791.08)
    assert table.loc["magi", "TeaCache-fast", "vbench"]["apart"] == pytest.approx(76.20 - 68.81)


def test_only_cells_with_different_reports_are_in_the_table(table):
    told = [
        [line[p] for p in ("SCOPE", "FlowCache", "MotionCache", "ARCache") if line[p]] for _, line in table.iterrows()
    ]
    assert all(len(set(texts)) > 1 for texts in told) and len(table) == 17
    assert not [key for key in table.index if key[1].startswith("SCOPE")]


def test_a_run_that_failed_elsewhere_stands_beside_every_point_of_its_method(table):
    for point in ("slow", "fast"):
        line = table.loc["skyreels", f"TaylorSeer-{point}", "speedup"]
        assert line["ARCache"] == "out of memory" and pd.isna(line["apart"])
    assert ("magi", "TaylorSeer-slow", "speedup") not in table.index


def test_equal_numbers_with_other_digits_are_no_disagreement(monkeypatch):
    ours = pd.DataFrame([{"model": "m", "method": "A", **dict.fromkeys(published.COLUMNS, "")} | {"speedup": "6.70"}])
    theirs = pd.DataFrame([{"paper": "P", "model": "m", "method": "A", "speedup": "6.7", "outcome": ""}])
    monkeypatch.setattr(published, "table", {"table1": ours, "elsewhere": theirs}.get)
    assert disagreements.table().empty


def test_every_entry_names_a_row_of_table_1_and_a_paper_with_source_and_setting():
    rows = {(line["model"], line["method"]) for line in published.table("table1").to_dict("records")}
    for line in published.table("elsewhere").to_dict("records"):
        assert any(m == line["model"] and f"{row}-".startswith(f"{line['method']}-") for m, row in rows), line
        assert all(published.source(line["paper"]).values())


def test_a_report_has_the_table_in_three_formats_with_settings_and_sources(tmp_path):
    make_store(tmp_path, videos=False, cells={("original", None): CELLS["original", None]}, prompts=["a fox"])
    tables = build(read(tmp_path)) / "tables"
    csv = pd.read_csv(tables / "published_disagreements.csv", keep_default_na=False).to_dict("records")
    assert len(csv) == 17
    assert all(text in csv[0]["sources"] for text in ("2604.02979", "2602.10825", "2605.01725"))
    assert "177 frames" in csv[0]["settings"]
    for suffix in ("md", "tex"):
        text = (tables / f"published_disagreements.{suffix}").read_text()
        assert "0.1472" in text and "2605.01725" in text and "out of memory" in text
