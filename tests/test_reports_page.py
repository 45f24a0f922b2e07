"""The page in a real browser: videos in step, sorting, nothing fetched, prompts stay text, 400 videos open at once."""

import pytest

from benchmarks.browser import CHROMIUM, Browser
from reports import build, read
from reports.page import render
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
    return build(read(root)) / "index.html"


def test_a_prompt_with_markup_is_escaped_in_the_source(page):
    text = page.read_text()
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text


def test_links_to_videos_are_relative_and_quoted(tmp_path):
    make_store(tmp_path, cells={("original", None): CELLS["original", None]}, model="my+model", videos=False)
    text = (build(read(tmp_path)) / "index.html").read_text()
    assert '"../my%2Bmodel/original/' in text and str(tmp_path) not in text


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
    browser.eval("d = document.querySelector('.difference'); d.checked = true; d.dispatchEvent(new Event('change'))")
    shown = "[...document.querySelectorAll('.prompt .player:not(.original) .screen canvas')].slice(0, 6)"
    assert browser.eval(f"{shown}.every((c) => getComputedStyle(c).display === 'block' && c.width === 64)")


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
