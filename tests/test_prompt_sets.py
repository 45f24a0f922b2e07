"""Which prompts a run takes: the menu's sets, the user's own, VBench's lists; and what a sweep says about them."""

import json
from types import SimpleNamespace

import pytest

from conf.prompt_files import DIMENSIONS, Entry, entries_of
from conf.schema import CONF, ConfigError, explain
from conf.suite import FOR_A_CLAIM, Prompts, chosen, set_for, sets
from conf.words import words
from engine.method import Original
from eval import vbench_suite, vbench_total
from reports.settings_check import LEAST_PROMPTS
from sweep.cell import Cell
from sweep.experiments import expanded
from sweep.prompt_sets import opening, suited

NATURAL = Prompts(file="conf/prompts/natural.json", menu="conf/prompts/natural.json", menu_limit=16)
FULL_INFO = [
    {"prompt_en": "a fox", "dimension": ["color", "scene"]},
    {"prompt_en": "a  hare, ", "dimension": ["scene"], "auxiliary_info": {"scene": "field"}},
    {"prompt_en": "a fox", "dimension": ["object_class"]},
]


def cell(prompts, model="skyreels", weights="checkpoint", seeds=(0,), task="videos", method=None, name="original"):
    """The attributes of a cell that the start of a sweep reads."""
    made = object.__new__(Cell)
    run = SimpleNamespace(prompts=prompts, seeds=list(seeds), task=task, shard="1/1", part=(1, 1), results="results")
    made.run, made.order = run, SimpleNamespace(name=name, speed=None)
    made.model = made.base = SimpleNamespace(name=model, settings=SimpleNamespace(weights=weights))
    made.method = method or Original()
    return made


# --- natural prompts and VBench's lists -------------------------------------------------------------------------------


def test_the_natural_set_has_several_prompts_of_every_dimension_and_one_of_each_in_its_default():
    entries = entries_of("conf/prompts/natural.json")
    assert len({entry.text for entry in entries}) == len(entries) == 64
    for dimension in DIMENSIONS:
        assert sum(dimension in entry.dimensions for entry in entries) >= 3, dimension
    first = {entry.text: entry.dimensions for entry in entries}
    taken = chosen(NATURAL)
    assert sorted(first[text][0] for text in taken.texts) == sorted(DIMENSIONS) and taken.available == 64
    assert len(vbench_suite.load(CONF / "prompts" / "natural.json")) == 64  # the evaluation reads the same file


def test_dimensions_and_the_least_number_of_prompts_are_those_of_the_evaluation():
    assert tuple(vbench_total.DIMENSIONS) == DIMENSIONS
    assert FOR_A_CLAIM == LEAST_PROMPTS


def test_a_copy_of_vbench_is_read_as_json_as_text_and_as_a_folder(tmp_path):
    full, folder = tmp_path / "VBench_full_info.json", tmp_path / "prompts_per_dimension"
    full.write_text(json.dumps(FULL_INFO), encoding="utf-8")
    folder.mkdir()
    (folder / "scene.txt").write_text("a hill\na fox\n")
    (folder / "color_longer.txt").write_text("a fox\n")
    assert entries_of(str(full)) == [Entry("a fox", ("color", "scene", "object_class")), Entry("a  hare, ", ("scene",))]
    assert entries_of(str(folder)) == [Entry("a fox", ("color", "scene")), Entry("a hill", ("scene",))]
    assert entries_of(str(folder / "scene.txt")) == [Entry("a hill"), Entry("a fox")]
    assert chosen(Prompts(file=str(full), dimension="color")).texts == ["a fox"]
    with pytest.raises(ConfigError, match=r"motion_smoothness.*names no prompt of it"):
        chosen(Prompts(file=str(full), dimension="motion_smoothness"))


@pytest.mark.parametrize(
    "content,why",
    [
        ("[", "is not JSON"),
        ("{}", "want a list of VBench"),
        ('["a fox"]', "entry 1 has no prompt"),
        ('[{"prompt_en": "", "dimension": []}]', "entry 1 has no prompt"),
        ('[{"prompt_en": "a", "dimension": "color"}]', "entry 1 has no prompt and list"),
        ('[{"prompt_en": "a", "dimension": ["colour"]}]', "colour is unknown; did you mean color"),
        ("[]", "has no prompts"),
    ],
)
def test_a_list_that_is_not_one_of_vbench_is_refused_in_one_line(tmp_path, content, why):
    file = tmp_path / "own.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=why) as caught:
        entries_of(str(file))
    assert f"prompts.file={file}" in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_lists_or_with_an_unknown_dimension_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"a folder without .txt files"):
        entries_of(str(tmp_path))
    (tmp_path / "colors.txt").write_text("a fox\n")
    with pytest.raises(ConfigError, match=r"colors.txt, which names no dimension of VBench; did you mean color"):
        entries_of(str(tmp_path))


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given,why",
    [
        (["prompts.limit=2", "prompts.limit=3"], "prompts.limit is given twice (2 and 3); give it once"),
        (["prompts.limit=2", "++prompts.limit=2"], "prompts.limit is given twice (2 and 2)"),
        (["prompts.file=a.txt", "prompts.file=b.txt"], "prompts.file is given twice (a.txt and b.txt)"),
        (["prompts.limit=2", "prompts.menu_limit=3"], "give only prompts.limit=2"),
        (["prompts.file=a.txt", "prompts.menu_limit=3"], "give only prompts.limit=3"),
        (["prompts.list=[]"], "prompts.list=[] has no prompts"),
        (["prompts.list=[ ]", "prompts.limit=1"], "prompts.list=[] has no prompts"),
    ],
)
def test_a_limit_given_twice_and_an_empty_list_are_refused_in_one_line(given, why):
    with pytest.raises(ConfigError) as caught:
        words(["method=scope", *given])
    assert why in str(caught.value) and "\n" not in str(caught.value)


def test_the_menus_number_never_cuts_own_prompts_and_is_a_number_at_most():
    own = [f"prompt {n}" for n in range(5)]
    assert (
        chosen(Prompts(list=own, file="conf/prompts/shapes.txt", menu="conf/prompts/shapes.txt", menu_limit=3)).texts
        == own
    )
    assert len(chosen(Prompts(file="conf/prompts/natural.json", menu_limit=16)).texts) == 64  # not the menu's own
    menu = {"file": "conf/prompts/natural.json", "menu": "conf/prompts/natural.json", "menu_limit": 16}
    assert len(chosen(Prompts(**menu, dimension="color")).texts) == 4
    assert len(chosen(Prompts(**menu, limit=2)).texts) == 2
    assert len(chosen(Prompts(**menu, limit=0)).texts) == 64
    with pytest.raises(ConfigError, match=r"prompts.limit=5, but .* has 4 prompts; want at most 4"):
        chosen(Prompts(**menu, dimension="color", limit=5))


def test_no_experiment_cuts_own_prompts():
    for line in expanded(["experiment=paper"]):
        assert not any(word.startswith("prompts.limit=") for word in line), line


# --- the set of a model, and the opening of a sweep -------------------------------------------------------------------


def test_an_experiment_takes_the_set_that_is_made_for_its_model_unless_prompts_are_named():
    assert set_for("skyreels") == set_for("magi1") == "natural" and set_for("skyreels_tiny") == "shapes"
    assert sum("skyreels" in models for models in sets().values()) == 1
    paper = suited(["experiment=paper", "model=skyreels,magi1"])
    assert paper and all(line[-1] == "prompts=natural" for line in paper)
    assert not any("prompts=natural" in line for line in suited(["experiment=fig7"]))
    for named in ("prompts=shapes", "prompts.file=mine.txt", 'prompts.list=["a"]'):
        given = ["experiment=fig7", "model=skyreels", named]
        assert suited(given) == expanded(given)
    for line in (["experiment=calibrate", "model=skyreels"], ["-m", "model=skyreels,skyreels_tiny"], ["method=scope"]):
        assert suited(line) == [line]
    assert suited(["experiment=fig6", "model=skyreels,magi1_tiny", "seeds=[1]"]) == [
        ["-m", "model=magi1_tiny", "method=scope", "speed=fast", "seeds=[1]"],
        ["-m", "model=skyreels", "method=scope", "speed=fast", "seeds=[1]", "prompts=natural"],
    ]


def test_a_sweep_says_its_set_prompts_seeds_and_videos():
    method = SimpleNamespace(reseed=lambda seed: seed)
    first = cell(NATURAL, seeds=(0, 1))
    second = cell(NATURAL, seeds=(0, 1), method=method, name="scope")
    second.base = second.model = first.model
    assert opening([first, second]) == [
        "skyreels: 2 seeds, the first 16 of 64 prompts of natural (a verdict wants at least 5); "
        "prompts.limit=0 takes all",
        "2 cells, 64 videos with the Originals; videos that are in the store are reused",
    ]
    assert opening([cell(Prompts(list=list("abcde")))])[0] == (
        "skyreels: 1 seed, 5 prompts of prompts.list (a verdict wants at least 5)"
    )
    assert opening([cell(NATURAL, task="plan")]) == []


def test_shapes_on_a_real_model_and_too_few_prompts_are_warned_of():
    shapes = Prompts(file="conf/prompts/shapes.txt", menu="conf/prompts/shapes.txt", menu_limit=3)

    def warned(*args, **settings):
        return [line.removeprefix("warning: ") for line in opening([cell(*args, **settings)]) if "warning" in line]

    unfit, few = warned(shapes)
    assert unfit.startswith("prompts=shapes is not made for skyreels") and "use prompts=natural" in unfit
    assert few.startswith("3 prompts on skyreels are too few for a claim") and "at least 5" in few
    assert warned(shapes, model="magi1")[0].startswith("prompts=shapes is not made for magi1")
    assert warned(shapes, weights="random") == [few]  # frames of random weights show nothing anyway
    assert len(warned(shapes, model="skyreels_tiny")) == 1
    assert warned(NATURAL) == []
    assert "knows only scenes of shapes" in warned(NATURAL, model="magi1_tiny")[0]
    assert warned(Prompts(list=["a"]))[0].startswith("1 prompt on skyreels is too few")
    assert len(warned(Prompts(list=["a"] * 5))) == 1  # the same prompt five times


@pytest.mark.parametrize(
    "word,suggested", [("prompt", "prompts.list"), ("seed", "seeds"), ("methods", "method"), ("limit", "prompts.limit")]
)
def test_a_wrong_name_suggests_what_a_user_means(word, suggested):
    assert explain(f"Could not override '{word}'.") == f"{word} is not a setting; did you mean {suggested}?"


def test_a_prompt_in_place_of_a_set_says_where_own_prompts_go():
    said = explain("Could not find 'prompts/a fox runs'")
    assert "prompts=a fox runs is not on the menu" in said and "prompts.list=[...]" in said
