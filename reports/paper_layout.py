"""tables/main_paper.tex: the main table in the layout of the paper's Table 1, to be pasted into a two-column article.

The lines of each model stand together, with the best two values of each column marked. The file needs the LaTeX
packages booktabs and threeparttable. The other table, `main.tex` (reports/formats.py), has every line and every note.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from reports import layout_notes
from reports.formats import ARROWS, escape
from reports.groups import Group, enumeration, groups
from reports.line import Line, shown
from reports.metric import BY_NAME
from reports.ranks import Rank, Ranks, places
from reports.report import Report
from store import writing

FILE = "main_paper.tex"
PACKAGES = "% needs \\usepackage{booktabs,threeparttable}\n"
COLUMNS = {  # metric: its heading below that of its group
    "time_s": "s",
    "speedup": "speedup",
    "flops_pf": "P",
    "flops_speedup": "speedup",
    "vbench": "VBench",
    "lpips": "LPIPS",
    "ssim": "SSIM",
    "psnr": "PSNR",
}
GROUPS = (("Time", 2), ("FLOPs", 2), ("", 1), ("Similarity to the Original", 3))  # headings of how many columns
NAME = 0.29  # width of the column of names, of \textwidth
MOST_LINES = 30  # of one float, headings included; raising it: fewer floats, but higher than a page with many notes
WORD = 20  # letters after which a word may be broken
STYLES = {None: "{}", Rank.BEST: "\\textbf{{{}}}", Rank.SECOND: "\\underline{{{}}}"}
HEAD = f"""\\small\\setlength{{\\tabcolsep}}{{2pt}}
\\begin{{tabular*}}{{\\textwidth}}{{@{{\\extracolsep{{\\fill}}}}p{{{NAME}\\textwidth}}{"r" * len(COLUMNS)}@{{}}}}
\\toprule"""
FOOT = "\\end{tablenotes}\n\\end{threeparttable}\n\\end{table*}\n"


def write(report: Report, folder: Path) -> Path:
    """Write `main_paper.tex` into `folder`; the same report gives the same bytes."""
    with writing(folder / FILE) as draft:
        draft.write_text(latex(report), encoding="utf-8")
    return folder / FILE


def latex(report: Report) -> str:
    """The table; several floats if there are more lines than fit on one page."""
    every = groups(report)
    if not every:
        return "% no record to report\n"
    ranks = {place: rank for group in every for place, rank in places(group.lines).items()}
    return PACKAGES + "\n".join(_float(report, part, ranks, n) for n, part in enumerate(_floats(every), 1))


def _floats(every: Sequence[Group]) -> Iterator[list[Group]]:
    """The groups of each float, at most `MOST_LINES` lines with their headings; a longer group goes on in the next."""
    part: list[Group] = []
    room, most = MOST_LINES, MOST_LINES - 1
    for group in every:
        for start in range(0, len(group.lines), most):
            piece = replace(group, lines=group.lines[start : start + most])
            if part and len(piece.lines) >= room:
                yield part
                part, room = [], MOST_LINES
            part.append(piece)
            room -= 1 + len(piece.lines)
    if part:
        yield part


def _float(report: Report, part: Sequence[Group], ranks: Ranks, n: int) -> str:
    """The n-th float, with its notes."""
    text = ["\\begin{table*}[t]", "\\centering", "\\begin{threeparttable}", f"\\caption{{{_caption(part, n)}}}"]
    text += [f"\\label{{tab:main_paper{n if n > 1 else ''}}}", HEAD, *_head()]
    for group in part:
        heading = f"\\textit{{{_breakable(group.title)}}}{escape(f' ({group.setting})' if group.setting else '')}"
        text += ["\\midrule", f"\\multicolumn{{{len(COLUMNS) + 1}}}{{@{{}}l@{{}}}}{{{heading}}} \\\\"]
        text += [_print(line, ranks) for line in group.lines]
    text += ["\\bottomrule", "\\end{tabular*}", "\\begin{tablenotes}[flushleft]\\footnotesize"]
    text += [f"\\item[{_sign(sign)}] {_breakable(note)}" for sign, note in layout_notes.signed(report, part)]
    general = " ".join(layout_notes.general(report, part, list(COLUMNS)))
    return "\n".join([*text, f"\\item[]\\hspace*{{-\\labelsep}}{_breakable(general)}", FOOT])


def _head() -> list[str]:
    """Two lines of headings, with a rule below each group of columns."""
    titles, rules, column = [], [], 2
    for title, width in GROUPS:
        titles.append(f"\\multicolumn{{{width}}}{{c}}{{{title}}}" if title else "")
        rules += [f"\\cmidrule(lr){{{column}-{column + width - 1}}}"] if title else []
        column += width
    below = [escape(f"{title} {ARROWS[BY_NAME[name].better]}") for name, title in COLUMNS.items()]
    return [f"& {' & '.join(titles)} \\\\", "".join(rules), f"Method & {' & '.join(below)} \\\\"]


def _print(line: Line, ranks: Ranks) -> str:
    cells = [STYLES[ranks.get((line.key, name))].format(escape(shown(line, BY_NAME[name]))) for name in COLUMNS]
    return f"{_name(line)} & {' & '.join(cells)} \\\\"


def _name(line: Line) -> str:
    """The name of a line with its signs; a long one may go on in a second line."""
    signs = ",".join(map(_sign, line.signs))
    text = _breakable(line.name) + (f"\\tnote{{{signs}}}" if signs else "")
    return f"\\raggedright\\hangindent=1em {text}" if len(line.name) > WORD else text


def _breakable(text: str) -> str:
    """LaTeX of a text; words longer than `WORD` may be broken after `=` and `_`, and after `WORD` letters.

    >>> _breakable("of setting_with_long_name")
    'of setting\\\\_\\\\allowbreak{}with\\\\_\\\\allowbreak{}long\\\\_\\\\allowbreak{}name'
    """
    return " ".join("\\allowbreak{}".join(map(escape, _pieces(word))) for word in text.split(" "))


def _pieces(word: str) -> list[str]:
    if len(word) <= WORD:
        return [word]
    return [piece for part in re.split(r"(?<=[=_])", word) for piece in re.findall(f".{{1,{WORD}}}", part)]


def _sign(sign: str) -> str:
    """A sign without the superscript, which \\tnote and \\item add.

    >>> _sign("†"), _sign("§")
    ('$\\\\dagger$', '\\\\S')
    """
    return escape(sign).replace("$^", "$").removesuffix("{}")


def _caption(part: Sequence[Group], n: int) -> str:
    """Two sentences: what is compared, and what the marks mean."""
    named = enumeration([group.model for group in part])
    return (
        f"Cost and quality of accelerated video generation on {_breakable(named)}{' (continued)' * (n > 1)}. "
        "Of the accelerated lines of a model, the best value is bold and the second best underlined."
    )
