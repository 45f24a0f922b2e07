"""Bundles: what is exported is read back; changed lines, newer versions and contradictions are named in one line."""

import copy
import gzip
import json

import jsonschema
import pytest

from store import Store, StoreError
from store.__main__ import main
from store.bundle import export
from store.bundled import read, schema
from store.json_schema import compiled, faults
from store.packed import DECIMALS, OTHER_DECIMALS, SHARED, Schedules, canonical, sha256
from tests.synthetic import CELLS, make_store

FEW = {name: CELLS[name] for name in (("original", None), ("scope", "fast"))}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    make_store(root, videos=False, cells=FEW)
    (root / "vbench" / "skyreels_tiny").mkdir(parents=True)
    (root / "vbench" / "skyreels_tiny" / "scope-fast.json").write_text(json.dumps({"total": {"total": 81.0}}))
    return root


@pytest.fixture(scope="module")
def bundle(results):
    path = results.parent / "whole.jsonl.gz"
    assert export(Store(results), path) == (6, {})
    return path


def lines(path):
    return [json.loads(line) for line in gzip.open(path, "rt")]


def rewritten(bundle, tmp_path, change, seal=False):
    """A copy of the bundle after `change` has edited its lines in place; `seal`: with new checksums."""
    found = lines(bundle)
    change(found)
    if seal:
        found = [line | {"sha256": sha256(canonical(line["content"]))} for line in found]
    path = tmp_path / "changed.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in found)
    return path


def first(found):
    return next(line["content"] for line in found if line["kind"] == "record")


def test_everything_but_videos_comes_back(results, bundle):
    stored, got = {record.path.name: record for record in Store(results).records()}, read(bundle)
    assert not got.damaged and len(got.records) == len(stored) == 6
    assert got.files == {"vbench/skyreels_tiny/scope-fast.json": {"total": {"total": 81.0}}}
    for record in got.records:
        there = stored[record.path.name]
        assert (record.run, record.scores, record.config) == (there.run, there.scores, there.config)
        assert (record.status, record.speed, record.path.parts[-3:]) == (
            there.status,
            there.speed,
            there.path.parts[-3:],
        )
        kept = [{name: entry[name] for name in (*SHARED, "mode")} for entry in there.trace()]
        assert record.trace() == kept
        for name, curve in there.quality["per_frame"].items():
            decimals = DECIMALS.get(name, OTHER_DECIMALS)
            mine = record.quality["per_frame"][name]
            assert [value is None for value in mine] == [value is None for value in curve]
            assert all(abs(a - b) <= 0.51 * 10**-decimals for a, b in zip(mine, curve, strict=True) if b is not None)


def test_the_same_records_give_the_same_bytes(results, bundle, tmp_path):
    export(Store(results), tmp_path / "again.jsonl.gz")
    assert (tmp_path / "again.jsonl.gz").read_bytes() == bundle.read_bytes()


def test_records_share_their_schedules(bundle):
    kinds = [line["kind"] for line in lines(bundle)]
    assert kinds == ["bundle", "schedule", *["record"] * 6]


def test_a_changed_row_is_left_out_and_named(bundle, tmp_path):
    for change in (
        lambda found: first(found)["run"].update(prompt="another prompt"),
        lambda found: first(found)["scores"].update(lpips=0.001),
        lambda found: first(found)["curves"]["lpips"]["steps"].append(1),
        lambda found: first(found)["ledger"].update(modes="c" * len(first(found)["ledger"]["modes"])),
        lambda found: found[2].update(sha256="0" * 64),
    ):
        got = read(rewritten(bundle, tmp_path, change))
        assert len(got.records) == 5
        (why,) = got.damaged.values()
        assert "checksum differs" in why and "line 3 (skyreels_tiny/original/" in next(iter(got.damaged))


def test_a_changed_row_with_a_new_checksum_contradicts_its_own_seal(bundle, tmp_path):
    got = read(
        rewritten(bundle, tmp_path, lambda found: first(found)["run"].update(seconds={"total": 1e-3}), seal=True)
    )
    assert len(got.records) == 5 and "sealed" in next(iter(got.damaged.values()))


def test_a_row_of_the_wrong_form_says_what_is_wrong(bundle, tmp_path):
    for change, told in (
        (lambda found: first(found)["run"].update(fps="eight"), "run.fps is 'eight', want number"),
        (lambda found: first(found).pop("scores"), "scores is missing"),
        (lambda found: first(found).update(more=1), "more is not known"),
        (lambda found: first(found).update(key="../../etc"), "key is '../../etc', want text that matches"),
        (lambda found: first(found)["curves"]["psnr"]["steps"].append("x"), "want integer or null"),
        (lambda found: first(found)["ledger"].update(modes="rr"), "do not fit their schedule"),
        (lambda found: first(found)["ledger"].update(schedule="0" * 64), "schedule of its decisions is missing"),
        (lambda found: first(found)["run"].update(schema=99), "newer"),
    ):
        got = read(rewritten(bundle, tmp_path, change, seal=True))
        assert len(got.records) == 5 and told in next(iter(got.damaged.values())), told


def test_removed_and_repeated_rows_are_named(bundle, tmp_path):
    got = read(rewritten(bundle, tmp_path, lambda found: found.pop()))
    assert got.damaged == {
        "changed.jsonl.gz": "its first line says 6 records, but it has 5; lines were removed or added"
    }
    got = read(rewritten(bundle, tmp_path, lambda found: found.append(found[-1])))
    assert len(got.records) == 6 and "its key is in the bundle twice" in got.damaged.values()


def test_a_newer_bundle_and_files_that_are_no_bundle_are_refused_in_one_line(bundle, tmp_path):
    def newer(found):
        found[0]["content"]["schema"] = 3
        found[0]["signature"] = "something that this version does not know"

    (tmp_path / "text.jsonl.gz").write_text("no gzip")
    (tmp_path / "cut.jsonl.gz").write_bytes(bundle.read_bytes()[:-200])
    with gzip.open(tmp_path / "other.jsonl.gz", "wt") as file:
        file.write('{"a": 1}\n')
    for path, told in (
        (
            rewritten(bundle, tmp_path, newer).rename(tmp_path / "newer.jsonl.gz"),
            "bundle schema 3, newer than 2; update the program",
        ),
        (rewritten(bundle, tmp_path, lambda found: found.pop(0)).rename(tmp_path / "headless.jsonl.gz"), "no header"),
        (rewritten(bundle, tmp_path, list.clear).rename(tmp_path / "empty.jsonl.gz"), "it holds no line"),
        (tmp_path / "text.jsonl.gz", "no complete bundle"),
        (tmp_path / "cut.jsonl.gz", "no complete bundle"),
        (tmp_path / "other.jsonl.gz", "kind is missing"),
        (tmp_path / "nothing.jsonl.gz", "no bundle"),
    ):
        with pytest.raises(StoreError, match=told) as refused:
            read(path)
        assert "\n" not in str(refused.value)


def test_both_of_our_checks_agree_with_the_package_jsonschema(bundle):
    rules = {kind: schema()["$defs"][kind] for kind in ("bundle", "schedule", "record")}
    for kind in rules:
        content = next(line["content"] for line in lines(bundle) if line["kind"] == kind)
        changed = [content]
        for name in content:
            for value in (None, 1, -1, "x", [], [1], {}, {"a": "b"}, True, 1.5):
                changed.append({**copy.deepcopy(content), name: value})
            changed.append({other: value for other, value in content.items() if other != name})
        for name in content.get("run", {}):
            for value in (None, -1, "x", [], {"total": "x"}, {"total": -1}, True):
                changed.append({**content, "run": {**content["run"], name: value}})
        for name in (name for name, of in content.items() if isinstance(of, dict)):
            for inner in content[name]:
                for value in (None, -1, "x", [], ["x"], {"decimals": 1}, {"decimals": 1, "steps": [1, None]}):
                    changed.append({**content, name: {**content[name], inner: value}})
        validator, fits = jsonschema.Draft202012Validator(rules[kind]), compiled(rules[kind])
        wanted = [validator.is_valid(one) for one in changed]
        assert {True, False} == {*wanted}
        for one, valid in zip(changed, wanted, strict=True):
            assert valid == (not [*faults(one, rules[kind])]) == fits(one), one


def test_an_original_that_was_compared_with_nothing_is_a_record(bundle, tmp_path):
    compared = dict.fromkeys(("psnr", "ssim", "lpips", "identical"))
    got = read(rewritten(bundle, tmp_path, lambda found: first(found)["scores"].update(compared), seal=True))
    assert len(got.records) == 6 and not got.damaged


def test_a_schema_with_an_unknown_word_is_not_silently_accepted():
    for check in (lambda rule: list(faults(1, rule)), compiled):
        with pytest.raises(NotImplementedError, match="maximum"):
            check({"type": "integer", "maximum": 3})


def test_the_command_writes_a_bundle_and_names_what_it_left_out(tmp_path, capsys):
    make_store(tmp_path / "results", videos=False, cells=FEW, prompts=["a fox", "a dog"])
    target = tmp_path / "out" / "lab.jsonl.gz"
    assert main(["export", str(tmp_path / "results"), str(target)]) == 0
    assert "lab.jsonl.gz: 4 records" in capsys.readouterr().out
    record = next(Store(tmp_path / "results").records())
    (record.path / "run.json").write_text(json.dumps(record.run | {"prompt": "edited"}))
    assert main(["export", str(tmp_path / "results"), str(target)]) == 1
    said = capsys.readouterr()
    assert "changed after it was sealed" in said.err and "3 records" in said.out
    assert main(["export", str(tmp_path / "results"), str(tmp_path / "bundle.parquet")]) == 1
    assert "want a name that ends in .jsonl.gz" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "nowhere"), str(target)]) == 1


def test_a_changed_curve_is_left_out_and_its_spacing_and_order_do_not_matter(tmp_path):
    make_store(tmp_path / "results", videos=False, cells=FEW, prompts=["a fox"])
    plain, changed = (record.path / "quality.json" for record in Store(tmp_path / "results").records())
    content = json.loads(plain.read_text())
    assert list(content["per_frame"]) != sorted(content["per_frame"]), "the file must have another order than the seal"
    plain.write_text(json.dumps(dict(reversed(content.items())), indent=3))
    content = json.loads(changed.read_text())
    content["per_frame"]["lpips"][3] += 1e-9
    changed.write_text(json.dumps(content, indent=1))
    count, left = export(Store(tmp_path / "results"), tmp_path / "bundle.jsonl.gz")
    (why,) = left.values()
    assert count == 1 and "quality.json was changed after it was sealed" in why
    assert not read(tmp_path / "bundle.jsonl.gz").damaged


def test_a_space_put_into_the_name_of_a_curve_breaks_the_seal(tmp_path):
    make_store(tmp_path / "results", videos=False, cells=FEW, prompts=["a fox"])
    for record in Store(tmp_path / "results").records():
        path = record.path / "quality.json"
        path.write_text(path.read_text().replace('"lpips": [', '"lp ips": ['))
    count, left = export(Store(tmp_path / "results"), tmp_path / "bundle.jsonl.gz")
    assert count == 0 and all("quality.json was changed after it was sealed" in why for why in left.values()) and left


def test_scores_that_hold_other_curves_beside_the_sealed_ones_are_left_out(tmp_path):
    make_store(tmp_path / "results", videos=False, cells=FEW, prompts=["a fox"])
    for number, record in enumerate(list(Store(tmp_path / "results").records())):
        path = record.path / "quality.json"
        other = json.dumps({"psnr": [99.0], "ssim": [1.0], "lpips": [0.0]})
        name = ("per_frame", r"per\u005fframe")[number]
        path.write_text(path.read_text().rstrip()[:-1] + f', "{name}": {other}}}')
    count, left = export(Store(tmp_path / "results"), tmp_path / "bundle.jsonl.gz")
    assert count == 0 and {*left.values()} == {"quality.json has 'per_frame' twice"} and len(left) == 2


def test_a_trace_with_a_line_that_ends_early_is_not_taken_for_a_known_schedule():
    entry = {"iteration": 0, "segment": 0, "unit": 0, "slots": [0, 2], "active": [0, 2], "branch": "", "sigma": 1.0}
    texts = [json.dumps(entry | {"iteration": n, "mode": "cache"}, separators=(",", ":")) for n in range(3)]
    schedules = Schedules()
    whole = schedules.decisions("\n".join(texts).encode())
    assert whole[0]["modes"] == "ccc" and schedules.decisions("\n".join(texts).encode()) == (whole[0], None)
    texts[1] = texts[1].partition(',"mode"')[0]
    with pytest.raises(json.JSONDecodeError):
        schedules.decisions("\n".join(texts).encode())


def test_a_record_of_a_bundle_is_not_written_to(bundle):
    with pytest.raises(StoreError, match="is in a bundle"):
        read(bundle).records[0].write_json("quality.json", {})


def test_a_schedule_that_was_read_before_is_found_by_its_text_and_any_spacing_means_the_same():
    """The second and third trace are as the ledger writes them, the first has spaces; one of them has other slots."""
    entry = {"iteration": 0, "segment": 0, "unit": 0, "slots": [0, 2], "active": [0, 2], "branch": "", "sigma": 1.0}
    entry |= {"step": 0, "mode": "recompute", "score": None, "why": 'a ,"mode":" in a text'}
    modes = (["recompute", "cache"], ["recompute", "predict"], ["predict", "cache"], ["cache", "cache"])
    schedules, found = Schedules(), []
    for n, own in enumerate(modes):
        lines = [{**entry, "iteration": i, "mode": mode} for i, mode in enumerate(own)]
        lines[1]["slots"] = [0, 3] if n == 3 else [0, 2]
        separators = (", ", ": ") if n == 0 else (",", ":")
        text = "\n".join(json.dumps(line, separators=separators) for line in lines)
        found.append(schedules.decisions(text.encode()))
    told = [ledger for ledger, _ in found]
    assert [one["modes"] for one in told] == ["rc", "rp", "pc", "cc"]
    assert told[0]["schedule"] == told[1]["schedule"] == told[2]["schedule"] != told[3]["schedule"]
    assert [fresh is not None for _, fresh in found] == [True, False, False, True]
    assert found[3][1]["slots"] == [[0, 2], [0, 3]]
