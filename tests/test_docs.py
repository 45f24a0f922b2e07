"""The documentation: README is short, and every link and picture of a page is there."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
SCREENS, LINES = 3, 45  # README fits in so many screens of so many lines


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_of_a_page_are_there(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    lost = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not lost


def test_the_readme_is_three_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= SCREENS * LINES


def test_every_page_is_in_the_menu_of_the_site():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    named = set(re.findall(r"[\w/]+\.md", text))
    assert named == {page.name for page in PAGES if page.parent.name == "docs"}
    assert isinstance(yaml.safe_load("nav:" + text)["nav"], list)
