"""Records of some methods replace those of the results page; all others stay."""

import json

import pytest

from benchmarks.results_records import main, merged
from store.packed import canonical


def bundle(*records):
    lines = [("bundle", canonical({"records": len(records), "schema": 1, "files": {}}))]
    for method, key, value in records:
        content = {
            "model": "m",
            "cell": method,
            "key": key,
            "run": {"method": method, "attention": "full"},
            "scores": value,
        }
        lines.append(("record", canonical(content)))
    return lines


def seen(lines):
    read = [json.loads(text) for kind, text in lines if kind == "record"]
    return sorted((one["cell"], one["key"], one["scores"]) for one in read)


OLD = bundle(("original", "o", 1), ("ramp", "a", 2), ("uniform", "u", 3))


def test_records_of_the_named_methods_are_replaced_and_the_others_stay():
    lines = merged(OLD, bundle(("original", "o", 10), ("ramp", "b", 20)), ["ramp"])
    assert seen(lines) == [("original", "o", 10), ("ramp", "b", 20), ("uniform", "u", 3)]
    assert json.loads(lines[0][1])["records"] == 3 and lines[0][0] == "bundle"


def test_records_of_one_model_or_attention_are_replaced_or_records_are_added_to_those_of_a_method():
    fresh = bundle(("ramp", "b", 20))
    for own in ("ramp@m", "ramp@m@full"):
        assert ("ramp", "a", 2) not in seen(merged(OLD, fresh, [own]))
    for other in ("ramp@another", "ramp@m@block_causal"):
        assert ("ramp", "a", 2) in seen(merged(OLD, fresh, [other]))
    assert {("ramp", "a", 2), ("ramp", "b", 20)} <= set(seen(merged(OLD, fresh, ["+ramp"])))


def test_a_schedule_that_both_hold_is_written_once_and_before_the_records_that_use_it():
    schedule = ("schedule", canonical({"step": [0, 1]}))
    old, fresh = [OLD[0], schedule, *OLD[1:]], [OLD[0], schedule, *bundle(("ramp", "b", 20))[1:]]
    lines = merged(old, fresh, ["ramp"])
    assert lines.count(schedule) == 1 and lines.index(schedule) == 1


def test_new_records_of_a_method_that_is_not_named_are_refused():
    with pytest.raises(ValueError, match="got new records of uniform; name these methods"):
        merged(OLD, bundle(("uniform", "v", 1)), ["ramp"])


def test_without_methods_the_command_says_what_it_wants(capsys):
    assert main(["RESULTS"]) == 2 and "want a results folder and the names of methods" in capsys.readouterr().out
