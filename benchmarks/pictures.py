"""Makes the README's pictures from a report: the page with playing videos, the radar, a timeline, the Pareto fronts.

    python -m benchmarks.pictures RESULTS [MODEL]

Writes docs/page.png, radar.png, timeline.png and pareto.png, each with 256 colours and below 300 KB. The page is a
screenshot of headless Chromium (apt-get install chromium), 1280 pixels wide. It shows the main table of the first model
and the videos of the first prompt at about half of their time, without table notes and other models.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks.browser import Browser
from terminal import tolerate

DOCS = Path(__file__).parents[1] / "docs"
WIDTH, TIME = 1280, 0.45  # width in pixels; position in the video, as a share of its length
VIDEOS = "[...document.querySelector('.prompt').querySelectorAll('video')]"
SHORTEN = """document.querySelectorAll('section').forEach((s, n) => { if (n && s.id !== 'videos') s.remove(); });
[...document.querySelectorAll('.prompt')].slice(1).forEach((p) => p.remove());"""


def page(index: Path) -> Image.Image:
    """A screenshot of the page, from the top to the end of the first prompt."""
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(Path(profile))
        view = {"width": WIDTH, "deviceScaleFactor": 1, "mobile": False}
        browser.send("Emulation.setDeviceMetricsOverride", height=900, **view)
        browser.open(index)
        browser.eval(SHORTEN)
        height = browser.eval("document.documentElement.scrollHeight")
        browser.send("Emulation.setDeviceMetricsOverride", height=height + 900, **view)  # room for the players
        browser.until(f"{VIDEOS}.length && {VIDEOS}.every((v) => v.readyState === 4)")
        browser.eval(f"s = document.querySelector('.scrub'); s.value = {TIME}; s.dispatchEvent(new Event('input'))")
        browser.until(f"{VIDEOS}.every((v) => !v.seeking && v.currentTime > 0)")
        end = browser.eval("document.querySelector('.prompt').getBoundingClientRect().bottom + 24")
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": end, "scale": 1}
        shot = browser.send("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        browser.close()
    return Image.open(io.BytesIO(base64.b64decode(shot["data"])))


def save(picture: Image.Image, name: str, width: int = WIDTH) -> None:
    """Write docs/NAME.png with at most `width` pixels in width and 256 colours."""
    flat = picture.convert("RGB")
    if flat.width > width:
        flat = flat.resize((width, round(flat.height * width / flat.width)), Image.Resampling.LANCZOS)
    path = DOCS / f"{name}.png"
    flat.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {flat.width} × {flat.height}, {path.stat().st_size / 1000:.0f} KB")


def main(results: str, model: str = "skyreels_tiny") -> None:
    report = Path(results).resolve() / "report"
    save(page(report / "index.html"), "page")
    for name, figure in (("radar", "radar"), ("timeline", "timeline"), ("pareto", "speed_quality")):
        figure = f"{figure}_{model}"
        save(Image.open(report / "figures" / f"{figure}.png"), name)


if __name__ == "__main__":
    tolerate()
    main(*(sys.argv[1:3] or ["results"]))
