"""The example of a method in docs/adding.md, in a folder outside the repository: one Python file and one YAML file."""

import re
import sys
from pathlib import Path

import pytest

import run
from tests import tiny_menu
from tests.test_run import call, records, table

PAGE = Path(run.__file__).parent / "docs" / "adding.md"


def example(language, naming):
    """The block of code on the page that begins with a comment naming its file."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(rf"```{language}\n(# [^\n]*{re.escape(naming)}.*?)```", text, re.S)
    assert len(blocks) == 1, f"the page has {len(blocks)} {language} blocks that name {naming}"
    return blocks[0]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """The folder of a user's plug-in, on the Python path, with a tiny model."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "mine.py").write_text(example("python", "mine.py"))
    (folder / "method").mkdir()
    (folder / "method" / "every_other.yaml").write_text(example("yaml", "every_other.yaml"))
    tiny_menu.write(folder, frames=21, height=64, width=64, text_length=16)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("mine", None)


def test_the_readmes_method_runs_from_outside_the_repository_and_is_a_row_of_the_table(plugin):
    results = plugin / "results"
    said = call(
        "-m",
        "--config-dir",
        plugin,
        "model=tiny",
        "method=original,every_other",
        "prompts.list=[a fox]",
        "prompts.file=''",
        f"results={results}",
        "device=cpu",
    )
    assert said.status == 0, said.out + said.err
    rows = table(results)
    assert set(rows) == {"original", "every_other"} and rows["every_other"]["videos"] == "1"
    assert float(rows["every_other"]["flops_speedup"]) > 1
    (record,) = records(results, "every_other")
    assert record.quality["lpips"] > 0 and record.run["reference_key"]
    skipped = [line["iteration"] for line in record.trace() if line["mode"] == "cache"]
    assert skipped == list(range(6, record.run["iterations"], 2)), "every odd row after the first five"
    assert record.run["state_bytes"] == 6 * 16 * 8 * 8 * 4, "the last velocity of 6 slots"


def test_its_settings_are_checked_like_our_own(plugin):
    said = call("--config-dir", plugin, "model=tiny", "method=every_other", "method.strat=3", "dry_run=true")
    assert said.status == 1 and "method.strat is not a setting" in said.err
