"""Generates docs/methods.md from the docstrings and fields of the methods.

    python -m baselines.shared.catalogue            write the page
    python -m baselines.shared.catalogue --check    exit 1 if the page is out of date

Sources are read, not imported, because this package must not import SCOPE, which the page also lists.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

from baselines.shared.memory_account import table
from terminal import tolerate

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "methods.md"
LABELS = ("Site", "Signal", "Memory", "Changed")
BASES = ("Method", "Scheduled", "FirstBlocks")  # classes that a method extends
RELEASED = "Released"  # "yes, no or in which respect; shown by TEST"
MEMORY = """## Memory

The memory that each method holds in addition to the model, at the settings of its YAML, per AR unit (a block of 5
latent frames, a chunk of 6), with both guidance branches. A test measures the same on small models, to the byte. On
SkyReels-V2 state is kept for every slot that a segment has reached, so a segment of 25 frames holds five times as much.
On MAGI-1 it is kept for the chunks in flight, four in the released model. MAGI-1 passes the oldest of them twice. State
at blocks is kept for both passes, as for a fifth chunk, except by ARCache. X-Cache holds the residuals of one AR unit
for every step, for 50 and 64 steps here. ARCache holds those of the first unit for 13 steps. More units add nothing to
these.
"""
RELEASES = """## Compared with the releases

| method | equal to the release on the same sequences? | shown by | known deviations |
|---|---|---|---|
"""
HEAD = """# Methods

Generated from the docstrings by `python -m baselines.shared.catalogue`; edit the docstrings. A *row* is one AR
iteration, a *slot* is one latent frame. A *hidden tensor* is the state of all slots between two blocks. A *latent* is a
tensor of the latent size of the video, much smaller than a hidden tensor. A *site* is the place in the forward where a
method supplies a result instead of the computation.

| method | site | signal | memory in addition to the model |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Page:
    """The documentation in the source of one method."""

    name: str  # name of its YAML
    title: str  # first line of the docstring: paper and rule
    body: str  # the rest of the docstring, without labels
    labels: dict[str, str]  # {label: text} of the paragraphs "Label: ..."
    fields: list[tuple[str, str, str]]  # name, default ("required" if none), comment


def read(source: Path) -> Page | None:
    """The page of the method in the file `source`; None if it defines no method."""
    text = source.read_text(encoding="utf-8")
    tree = ast.parse(text)
    kind = next((node for node in tree.body if isinstance(node, ast.ClassDef) and _is_method(node)), None)
    if kind is None:
        return None
    title, _, rest = (ast.get_docstring(tree) or "").partition("\n")
    body, labels = _split(rest)
    name = source.parent.name if source.stem == "method" else source.stem
    return Page(name, title, body, labels, _fields(kind, text.splitlines()))


def _is_method(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id in BASES for base in node.bases)


def _split(text: str) -> tuple[str, dict[str, str]]:
    """The text of a docstring without labels, and the paragraphs `Label: ...` at its end."""
    labels: dict[str, str] = {}
    body: list[str] = []
    last = ""
    for line in text.strip("\n").splitlines():
        label, colon, value = line.partition(":")
        if colon and label in (*LABELS, RELEASED):
            labels[last := label] = value.strip()
        elif last and line.strip():
            labels[last] += " " + line.strip()
        else:
            last = ""
            body.append(line)
    return "\n".join(body).strip("\n"), labels


def _fields(kind: ast.ClassDef, lines: list[str]) -> list[tuple[str, str, str]]:
    found = []
    for node in kind.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            line = lines[node.lineno - 1]
            _, _, comment = line[(node.end_col_offset or 0) :].partition("#")
            default = "required" if node.value is None else _plain(ast.unparse(node.value))
            found.append((node.target.id, default, comment.strip()))
    return found


def _plain(default: str) -> str:
    if default == "field(default_factory=list)":
        return "[]"
    return default.removeprefix("field(default_factory=").removeprefix("lambda: ").removesuffix(")").replace("'", '"')


def render(pages: list[Page]) -> str:
    """The whole page."""
    lines = [HEAD.rstrip("\n")]
    for page in pages:
        cells = [f"[{page.name}](#{page.name})", *(page.labels.get(label, "") for label in LABELS[:3])]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    lines += ["", *RELEASES.splitlines(), *(_release(page) for page in pages)]
    lines += ["", *MEMORY.splitlines(), "", *table()]
    for page in pages:
        lines += ["", f"## {page.name}", "", page.title, "", _fenced(page.body)]
        if page.labels.get("Changed"):
            lines += ["", f"**What we changed.** {_cell(page.labels['Changed'])}"]
        lines += ["", "| parameter | default | |", "|---|---|---|"]
        lines += [f"| `{name}` | `{default}` | {_cell(comment)} |" for name, default, comment in page.fields]
    return "\n".join(lines) + "\n"


def _release(page: Page) -> str:
    """The line of a method in the table of releases; without a label "Released" it was not compared."""
    equal, _, test = page.labels.get(RELEASED, "not compared").partition("; shown by ")
    cells = [page.name, equal, f"`{test.removesuffix('.')}`" if test else "", page.labels.get("Changed", "")]
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _fenced(text: str) -> str:
    """The text with indented blocks as code blocks, so that equations keep their layout."""
    out: list[str] = []
    inside = False
    for line in text.splitlines():
        if bool(line.startswith("    ")) != inside and line:
            out.append("```")
            inside = not inside
        out.append(line[4:] if inside else line)
    return "\n".join([*out, "```"] if inside else out).replace("\n\n```\n", "\n```\n\n")


def pages() -> list[Page]:
    """All methods of `scope` and `baselines`, SCOPE first."""
    sources = [ROOT / "scope" / "method.py", *sorted((ROOT / "baselines").glob("*.py"))]
    return [page for source in sources if (page := read(source))]


def main(arguments: list[str]) -> int:
    """Write the page, or check it with --check; returns the exit status."""
    text = render(pages())
    if "--check" in arguments:
        return 0 if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.parent.mkdir(exist_ok=True)
    staging = PAGE.with_suffix(".staging")
    staging.write_text(text, encoding="utf-8")
    staging.replace(PAGE)
    print(f"{PAGE.relative_to(ROOT)}: {len(pages())} methods")
    return 0


if __name__ == "__main__":
    tolerate()
    sys.exit(main(sys.argv[1:]))
