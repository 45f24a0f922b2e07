"""What a record's key covers: the code that computes frames, and none of its wording (docs/records.md)."""

import ast
import sys
from importlib import import_module
from pathlib import Path

import pytest

from baselines.library import External
from baselines.teacache import TeaCache
from engine import fingerprint, source
from engine.fingerprint import CodeError, code_of
from engine.method import Method, Original
from models.magi1.backbone import Magi1Backbone
from models.skyreels.backbone import SkyReelsV2
from scope.method import Scope

ROOT = Path(__file__).resolve().parents[1]
KINDS = {kind.__name__: kind for kind in (Original, Scope, TeaCache, SkyReelsV2, Magi1Backbone)}


def forget():
    for cached in (fingerprint.code_of_any, source.load, source.locate):
        cached.cache_clear()


@pytest.fixture(scope="module")
def plain():
    """The fingerprint of each class with unchanged code."""
    forget()
    return {kind: code_of(kind) for kind in KINDS.values()}


@pytest.fixture
def edited(monkeypatch):
    """edited(kind, (file, old, new), ...) -> the fingerprint of `kind` after these edits of the files."""

    def edit(kind, *edits):
        texts = {}
        for file, old, new in edits:
            path = ROOT / file
            text = texts.get(path) or path.read_text()
            assert old in text, f"{file} holds no {old!r}"
            texts[path] = text.replace(old, new, 1)
            ast.parse(texts[path])
        monkeypatch.setattr(source, "read", lambda path: texts.get(path) or path.read_text())
        forget()
        return code_of(kind)

    yield edit
    monkeypatch.undo()
    forget()


WORDING = [  # file, old, new
    ("engine/method.py", "The default answers are those of the Original.", "By default it is the Original."),
    ("engine/method.py", '    """The unaccelerated pipeline."""\n', "    ...\n"),
    ("engine/row.py", "# reuse the last computed result", "# the last result again"),
    ("engine/method.py", "def narrow(self, row: Row) -> Row:", "def narrow(self,\n        row):"),
    ("engine/row.py", 'f"got slots {slots}, want a non-empty part of {self.slots}"', 'f"got {slots!r}"'),
    ("engine/method.py", "chose {mode} at {site}, but its `fill` gives no result there", "cannot stand in"),
    ("engine/method.py", "raise RuntimeError(f", "raise RuntimeError(f'{self}' if self else f"),
    ("engine/loop.py", "segment = None\n", "segment: int | None = (\n        None)\n"),
    ("engine/loop.py", "import torch\n", "import sys\nimport torch\nfrom os import path as _path\n"),
    ("engine/loop.py", "Decision, Mode, Row", "Decision, Row\nfrom engine.row import Mode"),
    ("engine/staircase.py", '"""', '"""Reworded. '),
    ("models/skyreels/unipc.py", '"""', '"""Reworded. '),
    ("models/skyreels/timesteps.py", "WAITING = 999", "WAITING: int = 999"),
    ("models/wan/backbone.py", '"""The embedding of each guidance branch."""', '"""One each."""'),
    ("models/skyreels/plan.py", "return [1 + 4 * (s.first", "return [2 + 4 * (s.first"),  # only describes the video
    ("models/skyreels/settings.py", "is one of {', '.join(allowed)}, got", "wants {' or '.join(allowed)}, has"),
    ("models/skyreels/price.py", "total + cost", "total + 2 * cost"),  # counts FLOPs
    ("models/skyreels/capabilities.py", '"""', '"""Reworded. '),
    ("models/magi1/price.py", "return ", "return 1 and "),
    ("models/magi1/vae.py", '"""', '"""Reworded. '),
    ("models/magi1/plan.py", '"choose another method or another signal"', '"choose another"'),
    ("models/magi1/verify.py", "import argparse", "import argparse, os"),
    ("engine/meter.py", "import torch", "import torch, os"),
    ("engine/environment.py", "timeout=20", "timeout=21"),
    ("models/train_flow.py", "import", "import os\nimport"),
]
COMPUTING = [  # whose code, file, old, new
    ("SkyReelsV2", "models/skyreels/unipc.py", "torch.tensor(0.5)", "torch.tensor(0.75)"),
    ("SkyReelsV2", "models/skyreels/unipc.py", "a2 * x", "a2 + x"),
    ("SkyReelsV2", "engine/staircase.py", "return ", "return 0 or "),
    ("SkyReelsV2", "models/skyreels/backbone.py", "self.settings.guidance * (v", "0.5 * self.settings.guidance * (v"),
    ("SkyReelsV2", "models/skyreels/overlap.py", "level = 0.001", "level = 0.002"),
    ("SkyReelsV2", "models/skyreels/timesteps.py", "WAITING = 999", "WAITING = 998"),
    ("SkyReelsV2", "models/skyreels/attention.py", "return ", "return -1 * "),
    ("SkyReelsV2", "models/skyreels/forward.py", "FPS_ID = {", "FPS_ID = {0: 1, "),
    ("SkyReelsV2", "models/wan/vae.py", "/ 2 + 0.5", "/ 2 + 0.4"),
    ("SkyReelsV2", "models/wan/text.py", "html.unescape(html.unescape(", "html.unescape((  "),
    ("SkyReelsV2", "models/wan/settings.py", "TEMPORAL, SPATIAL = 4, 8", "TEMPORAL, SPATIAL = 4, 16"),
    ("SkyReelsV2", "engine/loop.py", "model.advance(latents, row,", "model.advance(1 * latents, row,"),
    ("Magi1Backbone", "models/magi1/schedule.py", "return ", "return 0 + "),
    ("Magi1Backbone", "models/magi1/chunk_forward.py", "return ", "return 0 + "),
    ("Magi1Backbone", "models/magi1/attention.py", "return ", "return 0 + "),
    ("Magi1Backbone", "models/magi1/vae.py", "import torch.nn.functional as F", "import torch as F"),
    ("Magi1Backbone", "models/magi1/tiling.py", "return ", "return 0 + "),
    ("Magi1Backbone", "models/magi1/embed.py", "_ROPE_BASE", "_ROPE_BASE = 1\n_OTHER"),
    ("Original", "engine/loop.py", "plan = decide(", "row, plan = row, decide("),
    ("Original", "engine/visit.py", "return ", "return 0 or "),
    ("Original", "engine/method.py", "return Decision(Mode.RECOMPUTE)", "return Decision(Mode.CACHE)"),
    ("Original", "engine/row.py", 'RECOMPUTE = "recompute"', 'RECOMPUTE = "computed"'),
    ("Scope", "engine/forecast.py", "return ", "return 0 or "),
    ("Scope", "engine/history.py", "return ", "return 0 or "),
    ("Scope", "scope/predictors.py", "return ", "return 0 or "),
    ("Scope", "scope/method.py", "@dataclass", "@dataclass(eq=False)"),
    ("TeaCache", "baselines/teacache.py", "return self.per_branch", "return not self.per_branch"),
]


@pytest.mark.parametrize("name", KINDS)
def test_wording_prices_and_descriptions_leave_every_key(edited, plain, name):
    assert edited(KINDS[name], *WORDING) == plain[KINDS[name]]


@pytest.mark.parametrize(("name", "file", "old", "new"), COMPUTING, ids=lambda value: str(value)[:40])
def test_what_computes_frames_changes_the_key(edited, plain, name, file, old, new):
    assert edited(KINDS[name], (file, old, new)) != plain[KINDS[name]]


def test_a_method_depends_on_no_other_and_no_backbone(edited, plain):
    other = ("scope/predictors.py", "return ", "return 0 or ")
    sampler = ("models/skyreels/unipc.py", "torch.tensor(0.5)", "torch.tensor(0.75)")
    assert edited(TeaCache, other, sampler) == plain[TeaCache]


def test_a_library_that_a_method_imports_by_name_counts(edited):
    change = ("baselines/shared/diffusers_hooks.py", "getattr(library, name)", "getattr(library, name, None)")
    assert edited(External, change) != edited(External)


PLUGIN = {
    "mine.py": "from engine.method import Method\nfrom beside import HOW, note\n\n@note\nclass Mine(Method):\n"
    "    def decide(self, part, probe):\n        from late import later\n        return HOW(later)\n",
    "beside.py": "from kept import *\nKNOWN = []\ndef note(kind):\n    KNOWN.append(kind)\n    return kind\n"
    "def HOW(x):\n    return x + VALUE\ndef unused():\n    return 1\n",
    "kept.py": "VALUE = 3\n",
    "late.py": "def later():\n    return 5\n",
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """mine(files, module="mine") -> the fingerprint of the class Mine in a plug-in that consists of these files."""
    count = iter(range(100))

    def code(files, module="mine"):
        folder = tmp_path / str(next(count))
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            kind = import_module(module).Mine
            found = code_of(kind)
        own = {Path(file).parts[0].removesuffix(".py") for file in files}
        for name in [name for name in sys.modules if name.split(".")[0] in own]:
            del sys.modules[name]
        return found

    return code


def test_a_plug_in_in_a_file_of_its_own_counts_with_what_it_imports_from_beside_it(mine):
    plain = mine(PLUGIN)

    def edit(name, old, new):
        return mine(PLUGIN | {name: PLUGIN[name].replace(old, new)})

    assert edit("late.py", "5", "6") != plain  # imported inside a function
    assert edit("kept.py", "3", "4") != plain  # imported by a star
    assert edit("mine.py", "HOW(later)", "HOW(HOW)") != plain
    assert edit("beside.py", "KNOWN = []", "KNOWN = [1]") != plain  # what a decorator does
    assert edit("beside.py", "return 1", "return 2") == plain  # not used
    assert edit("mine.py", "class Mine", "# mine\nclass Mine") == plain


def test_names_and_places_of_modules_and_definitions_do_not_matter(mine):
    plain, after = mine(PLUGIN), PLUGIN["beside.py"].split("\n", 1)[1]
    other = after.replace("VALUE", "GIVEN").replace("KNOWN", "SEEN")
    moved = {
        "pack/__init__.py": "",
        "pack/kept.py": PLUGIN["kept.py"],
        "pack/late.py": PLUGIN["late.py"],
        "pack/own.py": PLUGIN["mine.py"]
        .replace("from beside", "from .other")
        .replace("from late import later", "import pack.late")
        .replace("HOW(later)", "HOW(pack.late.later)"),
        "pack/other.py": "from .kept import VALUE as GIVEN\n" + other,
    }
    assert mine(moved, "pack.own") == plain
    own = PLUGIN["mine.py"].replace("from beside import HOW, note\n", "")
    own = own.replace("        from late import later\n", "")
    assert mine({"one.py": PLUGIN["kept.py"] + PLUGIN["late.py"] + after + own}, "one") == plain


def test_two_functions_exchanged_are_noticed_although_both_stay_in_use(mine):
    text = """from engine.method import Method
def a(x): return x + 1
def b(x): return x + 2
class Mine(Method):
    def decide(self, part, probe, branch=''): return a(1)
    def settle(self, part, decision, branch=''): return b(1)
"""
    swapped = text.replace("def a(", "def c(").replace("def b(", "def a(").replace("def c(", "def b(")
    assert mine({"mine.py": text}) != mine({"mine.py": swapped})
    renamed = text.replace("a(", "first(").replace("b(", "second(")
    assert mine({"mine.py": text}) == mine({"mine.py": renamed})


def test_what_has_no_source_is_refused_in_one_line():
    kind = type("Typed", (Method,), {"__module__": "nowhere"})
    with pytest.raises(CodeError, match=r"nowhere.Typed has no source file .* put it into a .py file"):
        code_of(kind)
