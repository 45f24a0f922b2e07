"""The page in a real browser: videos in step, sorting, nothing fetched, prompts stay text, 400 videos open at once."""

import re
import zipfile
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote

import pytest

from benchmarks.browser import CHROMIUM, Browser
from reports import build, read, single
from reports.__main__ import make
from reports.contrast import GROUNDS, contrast
from reports.page import render
from reports.style import FAINT
from reports.terminal_table import verdicts
from tests.synthetic import CELLS, FPS, FRAMES, PROMPTS, make_store

VIDEOS = "document.querySelector('.prompt').querySelectorAll('video')"
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium")


def open_videos(browser, path):
    """Open the page at the first prompt, its videos loaded."""
    browser.open(path)
    browser.eval("document.querySelector('.prompt').scrollIntoView()")
    browser.until(f"[...{VIDEOS}].length === {len(CELLS)} && [...{VIDEOS}].every((v) => v.readyState === 4)")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    make_store(root)
    return build(read(root), send=True) / "index.html"


def test_a_prompt_with_markup_is_escaped_in_the_source(page):
    text = page.read_text()
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text


def test_links_to_videos_are_relative_and_quoted(tmp_path):
    make_store(tmp_path, cells={("original", None): CELLS["original", None]}, model="my+model", videos=False)
    text = (build(read(tmp_path)) / "index.html").read_text()
    assert '"../my%2Bmodel/original/' in text and str(tmp_path) not in text


def test_the_page_leads_with_the_verdict_and_folds_its_notes(page):
    text = page.read_text()
    verdict, table, notes, videos = (text.index(part) for part in ('"verdict"', "<table", "<details", 'id="videos"'))
    assert verdict < table < notes < videos
    assert all(f'<p class="verdict">{said}</p>' in text for said in verdicts(read(page.parents[1])))
    for term in ("slot", "chunk", "reference line", "masked", "adherence"):
        assert f"<dt>{term}</dt>" in text


def test_the_table_can_be_downloaded(page):
    links = re.findall(r'href="(tables/[^"]+)" download', page.read_text())
    assert [Path(link).suffix for link in links] == [".csv", ".tex", ".md"]
    assert all((page.parent / link).is_file() for link in links)


def test_without_javascript_every_video_can_be_played_and_its_decisions_read(page):
    text = page.read_text()
    plain = "".join(re.findall(r"<noscript>(.*?)</noscript>", text, re.S))
    assert plain.count("<video") == len(CELLS) * len(PROMPTS) == plain.count("decisions: ")
    assert '<html lang="en" class="static">' in text and ".static .needs-script { display: none" in text.replace(
        "[hidden], ", ""
    )


@needs_browser
def test_in_print_controls_are_left_out_and_the_whole_table_is_shown(browser, page):
    browser.open(page)
    browser.send("Emulation.setEmulatedMedia", media="print")
    shown = "getComputedStyle(document.querySelector({!r})).{}"
    assert browser.eval(shown.format(".controls", "display")) == "none"
    assert browser.eval(shown.format(".wide", "maxHeight")) == "none"
    browser.send("Emulation.setEmulatedMedia", media="")


@pytest.fixture(scope="module")
def sent(page, tmp_path_factory):
    """The unpacked zip, in a folder without the store."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with zipfile.ZipFile(single.path(page.parents[1])) as archive:
        archive.extractall(folder)
    return folder / page.parents[1].name / "index.html"


def test_the_zip_has_everything_that_its_page_links_to(page, sent):
    text = sent.read_text()
    links = {unquote(link) for link in re.findall(r'(?:href|src)="([^"#:]+)"', text)}
    videos = {unquote(link) for link in re.findall(r'"video": "([^"]+)"', text)}
    assert len(videos) == len(CELLS) * len(PROMPTS) and {"paper.html", "tables/main.csv"} <= links
    assert all((sent.parent / link).is_file() for link in links | videos)
    assert "../" not in text and str(page.parents[1]) not in text


def test_every_figure_can_be_downloaded_and_its_text_tells_its_numbers(page):
    text = page.read_text()
    links = re.findall(r'href="(figures/[^"]+)" download', text)
    assert {Path(link).suffix for link in links} == {".svg", ".png"}
    assert all((page.parent / unquote(link)).is_file() for link in links)
    told = re.search(r'src="figures/speed_quality_[^"]+" alt="([^"]+)"', text)[1]
    assert "SCOPE fast: speedup 2.76×, PSNR (dB) 28.62" in told and "Uniform: speedup 1.81×" in told


def test_figures_have_colours_for_a_dark_page_and_pictures_keep_theirs(page):
    for svg in (page.parent / "figures").glob("*.svg"):
        rules = re.findall(r'\[style\*="fill: (#\w+)"\] \{ fill: (#\w+) !important', svg.read_text())
        assert dict(rules)["#ffffff"] == GROUNDS["dark"]
        for colour, dark in rules:
            assert colour in ("#ffffff", FAINT) or contrast(dark, GROUNDS["dark"]) >= 4.5, (svg.name, colour)
    assert "image" not in "".join(rule for rule, _ in rules)


CONTRASTS = """(() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const found = channels(getComputedStyle(node).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  document.querySelectorAll('details').forEach((part) => { part.open = true; });
  const low = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !node.offsetParent) continue;
    const [a, b] = [light(channels(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(node.className + ': ' + node.textContent.slice(0, 40));
  }
  return low;
})()"""


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index.html", "paper.html"])
def test_all_text_has_a_contrast_of_four_and_a_half(browser, page, scheme, name):
    with shown_at(browser, 1440, 900, scheme):
        browser.open(page.with_name(name))
        assert browser.eval(CONTRASTS) == []


AXE = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
BARRIERS = "axe.run().then((found) => found.violations.map((v) => [v.help, ...v.nodes.map((n) => n.html)]))"


@needs_browser
@pytest.mark.parametrize("width, scheme", [(1440, "light"), (1440, "dark"), (390, "light")])
@pytest.mark.parametrize("name", ["index.html", "paper.html"])
def test_axe_finds_no_barrier_for_people_with_a_disability(browser, page, name, width, scheme):
    with shown_at(browser, width, 900, scheme):
        browser.open(page.with_name(name))
        browser.eval("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        browser.eval(f"{AXE}; 0")
        assert browser.eval(BARRIERS) == []


@needs_browser
def test_the_zip_plays_after_being_sent(browser, sent):
    open_videos(browser, sent)
    browser.eval("document.querySelector('.play').click()")
    browser.until(f"{VIDEOS}[0].currentTime > 0.2")
    assert browser.eval(f"{VIDEOS}[0].currentTime") > 0.2


@pytest.mark.slow
def test_a_report_without_the_zip_removes_an_older_one_and_the_same_report_gives_the_same_zip(tmp_path):
    make_store(tmp_path, cells={("original", None): CELLS["original", None]}, prompts=PROMPTS[:1])
    said = make(tmp_path, send=True)
    first = Path(said["zip"]).read_bytes()
    assert make(tmp_path, send=True) == make(tmp_path) == said  # nothing changed
    make(tmp_path, again=True, send=True)
    assert Path(said["zip"]).read_bytes() == first
    assert "zip" not in make(tmp_path, again=True) and not Path(said["zip"]).exists()


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_title_verdict_table_and_videos_fit_a_screen_and_a_half(browser, page, scheme):
    with shown_at(browser, 1440, 900, scheme):
        open_videos(browser, page)
        bottom = "document.querySelector({!r}).getBoundingClientRect().bottom + scrollY"
        assert browser.eval(bottom.format(".player .screen")) < 1.5 * 900
        assert browser.eval(bottom.format("table")) < 900


@needs_browser
def test_on_a_phone_the_method_column_stays_and_two_videos_are_side_by_side(browser, page):
    with shown_at(browser, 390, 844, "dark"):
        open_videos(browser, page)
        assert browser.eval("document.documentElement.scrollWidth") == 390
        boxes = "[...document.querySelectorAll('.player')].map((p) => p.getBoundingClientRect())"
        # one question for all: the page may still be scrolling between two
        (top, _), (beside, right), (below, _) = browser.eval(f"{boxes}.slice(0, 3).map((box) => [box.top, box.right])")
        assert top == beside < below and right <= 390
        browser.eval("document.querySelector('.wide').scrollLeft = 300")
        assert browser.eval("document.querySelector('.wide').scrollLeft") == 300
        name = "document.querySelector('tbody th.name').getBoundingClientRect()"
        assert browser.eval(f"{name}.left") >= 0 and 80 < browser.eval(f"{name}.width") < 195


@contextmanager
def shown_at(browser, width, height, scheme):
    """A screen of this size and colour scheme."""
    browser.send(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
    )
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    yield
    browser.send("Emulation.setEmulatedMedia", features=[])
    browser.send("Emulation.clearDeviceMetricsOverride")


@needs_browser
def test_videos_play_in_step_and_the_playheads_follow(browser, page):
    open_videos(browser, page)
    browser.eval("document.querySelector('.play').click()")
    browser.until(f"{VIDEOS}[0].currentTime > 1")
    times = browser.eval(f"[...{VIDEOS}].map((v) => v.currentTime)")
    mark = browser.eval("parseFloat(document.querySelector('.mark').style.left)")
    browser.eval("document.querySelector('.play').click()")
    assert len(times) == len(CELLS) and max(times) - min(times) < 1.5 / FPS
    assert mark == pytest.approx(100 * times[0] / (FRAMES / FPS), abs=10)
    assert browser.eval(f"[...{VIDEOS}].every((v) => v.paused)")


@needs_browser
def test_one_scrubber_moves_all_videos_and_their_difference_is_shown(browser, page):
    open_videos(browser, page)
    browser.eval("s = document.querySelector('.scrub'); s.value = 0.5; s.dispatchEvent(new Event('input'))")
    browser.until(f"[...{VIDEOS}].every((v) => !v.seeking)")
    times = browser.eval(f"[...{VIDEOS}].map((v) => v.currentTime)")
    assert times == pytest.approx([FRAMES / FPS / 2] * len(CELLS), abs=0.01)
    assert browser.eval("document.querySelector('.clock').textContent") == "2.06 s, frame 16"
    browser.eval(choose("difference"))
    shown = "[...document.querySelectorAll('.prompt .player:not(.original) .screen canvas')].slice(0, 6)"
    assert browser.eval(f"{shown}.every((c) => getComputedStyle(c).display === 'block' && c.width === 64)")


def choose(mode):
    """A script that chooses how the videos of the first prompt are shown."""
    return f"m = document.querySelector('.mode'); m.value = '{mode}'; m.dispatchEvent(new Event('change'))"


@needs_browser
def test_a_wipe_shows_the_chosen_video_left_of_one_divider_for_all(browser, page):
    open_videos(browser, page)
    browser.eval(choose("wipe"))
    browser.eval("a = document.querySelector('.against'); a.value = 'SCOPE slow'; a.dispatchEvent(new Event('change'))")
    browser.eval("d = document.querySelector('.divider'); d.value = 0.25; d.dispatchEvent(new Event('input'))")
    assert browser.eval("document.querySelector('.compared-with .title').firstChild.textContent") == "SCOPE slow"
    place = "[...document.querySelectorAll('.prompt .line')].map((l) => getComputedStyle(l))"
    lines = browser.eval(f"{place}.slice(0, 7).map((s) => [s.display, s.left, s.width])")
    assert [shown for shown, _, _ in lines].count("block") == len(CELLS) - 1
    width = browser.eval("document.querySelector('.prompt .screen').clientWidth")
    lefts = [float(left[:-2]) for shown, left, _ in lines if shown == "block"]
    assert lefts == pytest.approx([width / 4] * len(lefts), abs=1)


@needs_browser
def test_space_plays_and_arrows_step_by_a_frame(browser, page):
    open_videos(browser, page)
    press = (
        "document.querySelector('.prompt').dispatchEvent(new KeyboardEvent('keydown', {{key: '{}', bubbles: true}}))"
    )
    clock = "document.querySelector('.clock').textContent.split(', ')[1]"
    for key, frame in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("ArrowLeft", 0), ("ArrowLeft", 0)):
        browser.eval(press.format(key))
        browser.until(f"[...{VIDEOS}].every((v) => !v.seeking)")
        assert browser.eval(clock) == f"frame {frame}"
    browser.eval(press.format(" "))
    browser.until(f"!{VIDEOS}[0].paused")
    browser.eval(press.format(" "))
    assert browser.eval(f"[...{VIDEOS}].every((v) => v.paused)")


@needs_browser
def test_a_link_leads_to_a_prompt_a_time_and_a_mode(browser, page):
    browser.open(page)
    key = browser.eval("document.querySelectorAll('.prompt')[2].dataset.key")
    browser.eval(f"location.hash = '#prompt={key}&time=1.5&mode=wipe&against=SCOPE+fast'")
    third = "document.querySelectorAll('.prompt')[2]"
    browser.until(f"{third}.querySelector('.clock').textContent.startsWith('1.50 s')")
    assert browser.eval(f"{third}.dataset.mode") == "wipe"
    assert browser.eval(f"{third}.querySelector('.against').value") == "SCOPE fast"
    link = browser.eval(f"{third}.querySelector('.permalink').hash")
    assert link == f"#prompt={key}&time=1.500&mode=wipe&against=SCOPE+fast"
    browser.eval("location.hash = '#prompt=<img src=x onerror=alert(1)>&mode=none'")  # unknown: nothing happens
    assert browser.eval(f"{third}.dataset.mode") == "wipe"


@needs_browser
def test_prompts_and_methods_are_searched_and_the_original_stays(browser, page):
    open_videos(browser, page)
    search = "f = document.getElementById('find-{}'); f.value = '{}'; f.dispatchEvent(new Event('input'))"
    browser.eval(search.format("methods", "uniform, scope f"))
    rows = "[...document.querySelectorAll('tbody tr')].filter((r) => r.offsetParent).map((r) => r.dataset.name)"
    assert browser.eval(rows) == ["Original", "Uniform", "SCOPE fast"]
    shown = "[...document.querySelector('.prompt').querySelectorAll('.player')].filter((p) => p.offsetParent).length"
    assert browser.eval(shown) == 3
    browser.eval(search.format("prompts", "CIRCLE red"))
    assert browser.eval("[...document.querySelectorAll('.prompt')].filter((p) => p.offsetParent).length") == 1
    assert browser.eval("document.getElementById('found').textContent") == "1 of 3 prompts"


@needs_browser
def test_a_click_on_a_heading_sorts_the_better_end_first_and_again_reverses(browser, page):
    browser.open(page)
    heads = browser.eval("[...document.querySelectorAll('thead th')].map((h) => h.innerText.trim())")
    click = "document.querySelectorAll('thead th')[{}].querySelector('button').click()"
    names = "[...document.querySelectorAll('tbody th')].map((h) => h.innerText.trim())"
    column = next(n for n, head in enumerate(heads) if head.startswith("speedup"))
    browser.eval(click.format(column))
    assert browser.eval(names)[0].startswith("SCOPE fast")
    browser.eval(click.format(column))
    assert browser.eval(names)[0] == "Original, repeated"
    browser.eval(click.format(next(n for n, head in enumerate(heads) if head.startswith("LPIPS"))))
    assert browser.eval(names)[0] == "Original"
    browser.eval(click.format(0))
    assert browser.eval(names)[0] == "Original" and browser.eval(names)[-1].startswith("SCOPE fast")


@needs_browser
def test_prompts_stay_text_and_nothing_is_fetched_from_elsewhere(browser, page):
    browser.open(page)
    browser.eval("window.scrollTo(0, document.body.scrollHeight)")
    browser.until("document.querySelectorAll('video').length > 7")
    assert browser.eval("[...document.querySelectorAll('.prompt h3')].map((h) => h.textContent)") == PROMPTS
    seen = [
        event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"
    ]
    assert any(url.endswith(".mp4") for url in seen)
    assert all(url.startswith((page.parents[1].as_uri(), "data:")) for url in seen)
    wrong = ("Runtime.exceptionThrown", "Page.javascriptDialogOpening", "Log.entryAdded")
    assert [event for event in browser.events if event["method"] in wrong] == []


@needs_browser
@pytest.mark.slow
def test_four_hundred_videos_open_in_two_seconds(browser, tmp_path):
    make_store(tmp_path, prompts=[f"prompt {n}" for n in range(57)], videos=False)
    page = tmp_path / "report" / "index.html"
    page.parent.mkdir()
    page.write_text(render(read(tmp_path), []))
    browser.open(page)
    took = browser.until("performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert browser.eval("document.querySelectorAll('.prompt').length") == 57
    assert browser.eval("document.querySelectorAll('video').length") < 60
    assert took < 2000


@needs_browser
def test_departures_from_an_operating_point_are_shown_when_asked_for(browser, tmp_path):
    make_store(tmp_path, prompts=PROMPTS[:1], videos=False)
    fast = {("scope", "fast"): CELLS["scope", "fast"]}
    for skip in range(11):
        make_store(tmp_path, cells=fast, prompts=PROMPTS[:1], videos=False, changed={"method.max_skip": skip})
    page = tmp_path / "report" / "index.html"
    page.parent.mkdir()
    page.write_text(render(read(tmp_path), []))
    browser.open(page)
    rows = "[...document.querySelectorAll('tbody tr')].filter((row) => row.offsetParent).length"
    assert browser.eval(rows) == len(CELLS)
    browser.eval("document.querySelector('.switch .show-variants').click()")
    assert browser.eval(rows) == len(CELLS) + 11
    browser.eval("document.querySelector('.prompt').scrollIntoView()")
    browser.until(f"document.querySelectorAll('.player').length === {len(CELLS)}")
    browser.eval("document.querySelector('.controls .show-variants').click()")
    browser.until(f"document.querySelectorAll('.player').length === {len(CELLS) + 11}")
