"""The page in a real browser: videos in step, sorting, nothing fetched, prompts stay text, 400 videos open at once."""

import json
import os
import shutil
import subprocess
import time
from itertools import count

import pytest

from reports import build, tables
from reports.page import render
from reports.records import load
from tests.synthetic import CELLS, FPS, FRAMES, PROMPTS, make_store

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VIDEOS = "document.querySelector('.prompt').querySelectorAll('video')"
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium")


class Browser:
    """Headless Chromium, driven over a pipe by the DevTools protocol."""

    def __init__(self, profile):
        self.ids, self.events, self.rest = count(1), [], b""
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()

        def as_three_and_four():
            a, b = os.dup(to_browser), os.dup(from_browser)
            os.dup2(a, 3)
            os.dup2(b, 4)

        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--mute-audio",
                 "--autoplay-policy=no-user-gesture-required", f"--user-data-dir={profile}")  # fmt: skip
        self.process = subprocess.Popen([CHROMIUM, *flags], preexec_fn=as_three_and_four, close_fds=False,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method, **params):
        number = next(self.ids)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": self.session} if hasattr(self, "session") else {}
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def receive(self):
        while b"\0" not in self.rest:
            part = os.read(self.read, 1 << 20)
            assert part, "the browser ended"
            self.rest += part
        line, _, self.rest = self.rest.partition(b"\0")
        return json.loads(line)

    def open(self, path):
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        self.until("document.readyState === 'complete'")

    def open_videos(self, path):
        """Open the page at the first prompt, its videos loaded."""
        self.open(path)
        self.eval("document.querySelector('.prompt').scrollIntoView()")
        self.until(f"[...{VIDEOS}].length === {len(CELLS)} && [...{VIDEOS}].every((v) => v.readyState === 4)")

    def eval(self, script):
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, script, seconds=20.0):
        end = time.monotonic() + seconds
        while not (value := self.eval(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.02)
        return value

    def close(self):
        self.send("Browser.close")
        self.process.wait(10)
        os.close(self.read)
        os.close(self.write)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    make_store(root)
    return build(root) / "index.html"


def test_a_prompt_with_markup_is_escaped_in_the_source(page):
    text = page.read_text()
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text


def test_links_to_videos_are_relative_and_quoted(tmp_path):
    make_store(tmp_path, cells={("original", None): CELLS["original", None]}, model="my+model", videos=False)
    text = (build(tmp_path) / "index.html").read_text()
    assert '"../my%2Bmodel/original/' in text and str(tmp_path) not in text


@needs_browser
def test_videos_play_in_step_and_the_playheads_follow(browser, page):
    browser.open_videos(page)
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
    browser.open_videos(page)
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
    study = load(tmp_path)
    page = tmp_path / "report" / "index.html"
    page.parent.mkdir()
    page.write_text(render(study, tables.main(study), []))
    browser.open(page)
    took = browser.until("performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert browser.eval("document.querySelectorAll('.prompt').length") == 57
    assert browser.eval("document.querySelectorAll('video').length") < 60
    assert took < 2000
