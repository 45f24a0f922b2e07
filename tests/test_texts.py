"""Texts of the user are taken literally, or refused with a one-line message that says how to write them."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from conf.schema import CONF, ConfigError, parse, read_prompts
from conf.suite import Prompts
from conf.words import quoted, words
from models.prefix import read_prefix
from models.skyreels.settings import SkyReels

ROOT = CONF.parent
NASTY = [
    "/tmp/a#b",
    "~/x",
    "a=b",
    "日本",
    "שלום עולם",
    "🦊",
    "a b",
    "a$b",
    "$HOME",
    "a{b",
    "a\\",
    "a\\\\",
    "it's",
    'say "hi"',
    "a[b](c)",
    "a:b",
    "2026-10-07T12:30",
    "1e5",
    "null",
    "007",
    "a&b;c|d!",
    "%d%s",
    '\\"',
    "é\u2028è",
    "<b>&amp;",
    "x" * 3000,
]
BRACED = ["${x} here", "a ${ b", "\\${x}", "${", "}${a:b}"]


def composed(*arguments):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return parse(compose("config", overrides=words(arguments)))


@pytest.mark.parametrize("text", NASTY)
def test_a_text_is_taken_as_it_is_typed(text):
    """Folders without quotes and prompts in the quotes that README.md shows, in one composition."""
    run, *_ = composed(f"results={text}", f"prompts.list=[{quoted(text)}]", f"into={text}")
    assert (run.results, run.into, read_prompts(run.prompts)) == (text, text, [text])


def test_a_prompt_is_no_interpolation():
    run, *_ = composed(f"prompts.list=[{','.join(quoted(t) for t in BRACED if not t.startswith(chr(92)))}]")
    assert read_prompts(run.prompts) == [t for t in BRACED if not t.startswith("\\")]
    run, *_ = composed(r'prompts.list=["\${x} here"]')
    assert read_prompts(run.prompts) == ["${x} here"]


@pytest.mark.parametrize(
    "word,remedy",
    [
        ("seeds=0,1,2", "'seeds=[0,1,2]'"),
        ("seeds=range(0,3)", "'seeds=[0,1,2]'"),
        ("seeds=3", "'seeds=[3]'"),
        ("prompts.list=a red circle", "'prompts.list=[\"a red circle\"]'"),
        ("prompts.list=[it's]", "first prompt"),
        ("method.x=a#b", "'method.x=\"a#b\"'"),
        ("results=a,b", "'results=\"a,b\"'"),
        ("results=\udce9", "PYTHONUTF8=1"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_with_the_way_to_write_it(word, remedy):
    with pytest.raises(ConfigError) as caught:
        words([word])
    assert remedy in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "word",
    [
        "seeds=[99999999999999999999]",
        "seeds=[-9223372036854775809]",
        "prompts.limit=-1",
        "results=''",
    ],
)
def test_values_out_of_range_are_refused_when_composed(word):
    with pytest.raises(ConfigError, match=word.partition("=")[0]):
        composed(word)


def test_every_seed_that_composes_is_one_that_torch_takes():
    run, *_ = composed("seeds=[-9223372036854775808,18446744073709551615]")
    assert len(run.seeds) == 2
    for seed in run.seeds:
        assert torch.Generator().manual_seed(seed).initial_seed() == seed % 2**64


def test_a_list_or_a_file_of_ones_own_is_taken_alone_and_whole(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("".join(f"prompt {n}\n" for n in range(5)))
    own = [f"prompt {n}" for n in range(5)]

    def prompts(*arguments):
        return read_prompts(composed(*arguments)[0].prompts)

    assert prompts('prompts.list=["my prompt"]') == ["my prompt"]
    assert prompts(f"prompts.file={file}") == own
    assert prompts(f"prompts.file={file}", "prompts.list=[a]") == ["a", *own]
    assert prompts(f"prompts.file={file}", "prompts.limit=2") == own[:2]
    assert prompts(f"prompts.file={file}", "prompts.limit=5") == own
    with pytest.raises(ConfigError, match=r"prompts.limit=99, but .*mine.txt has 5 prompts; want at most 5"):
        prompts(f"prompts.file={file}", "prompts.limit=99")
    assert len(prompts()) == 3 and len(prompts("prompts.limit=0")) == 96
    assert len(prompts("prompts.file=conf/prompts/shapes.txt", "prompts.list=[a]")) == 97


@pytest.mark.parametrize(
    "content,expected",
    [
        ("\ufeffa\r\nb\r\n".encode(), ["a", "b"]),
        (b"a\rb", ["a", "b"]),
        ("a\n\ufeffb".encode(), ["a", "b"]),
        ("a\u2028b\x85c\n".encode(), ["a\u2028b\x85c"]),
        (b"# note\n#dawn\n\\# x\n##\n", ["#dawn", "# x"]),
    ],
)
def test_lines_of_a_prompt_file(tmp_path, content, expected):
    file = tmp_path / "日本 #1.txt"
    file.write_bytes(content)
    assert read_prompts(Prompts(file=str(file))) == expected


@pytest.mark.parametrize(
    "content,said",
    [
        (b"a\r\ncaf\xe9\r\n", "line 2: byte 0xe9 is not UTF-8"),
        ("a\n".encode("utf-16"), "UTF-16; save it as UTF-8"),
        (b"a\nb\n\x00c", "line 3: contains the control character 0x00"),
    ],
)
def test_a_prompt_file_of_another_encoding_is_refused_by_line(tmp_path, content, said):
    file = tmp_path / "p.txt"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        read_prompts(Prompts(file=str(file)))


@pytest.mark.parametrize(
    "changes,said",
    [
        ({"overlap": 0}, "model.frames=257 is longer than one segment of model.base_frames=97"),
        ({"overlap": 97}, "leaves no new frame"),
        ({"overlap": 101}, "leaves no new frame"),
        ({"overlap": 18}, "overlap must be 4 k . 1"),
        ({"overlap": -3}, "overlap must be 4 k . 1"),
        ({"base_frames": 98}, "base_frames must be 4 k . 1"),
        ({"frames": 256}, "the nearest that does is 257"),
        ({"frames": 5}, "does not fill blocks"),
        ({"height": 540}, "multiple of 16"),
    ],
)
def test_a_length_that_the_windows_cannot_make_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        SkyReels(**changes)


@pytest.mark.parametrize("name", ["a:b/x%d.png", "http:x.png"])
def test_a_prefix_is_read_by_the_very_name_of_its_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((16, 16, 3), 200, np.uint8)).save(name)
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(name.replace("%d", "1") if "%d" in name else "other.png")
    assert read_prefix(Path(name), 1, 24, 16, 16).float().mean() > 190


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_degrades_where_the_encoding_is_narrow(encoding):
    code = "from terminal import *; tolerate(); print('日本'); console().print('日本 :warning: é')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, env={"PYTHONIOENCODING": encoding}
    )
    assert done.returncode == 0 and b"\\u65e5" in done.stdout and b":warning:" in done.stdout, done.stderr


def test_every_command_lets_its_output_degrade():
    left_out = {"eval/vbench_runner.py"}  # has no part of ours
    for path in (
        p
        for top in ROOT.iterdir()
        if top.name not in ("tests", ".venv", "examples")
        for p in ([top] if top.suffix == ".py" else top.rglob("*.py") if top.is_dir() else [])
    ):
        text = path.read_text(encoding="utf-8")
        names = [n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)]
        if '__name__ == "__main__"' in text and str(path.relative_to(ROOT)) not in left_out:
            assert "tolerate" in names or "terminal.tolerate()" in text, path
