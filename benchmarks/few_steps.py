"""Writes docs/few_steps.md: quality against cost at 1 to 50 steps, from the videos of experiment=few_steps.

    python run.py experiment=few_steps results=RESULTS
    python -m benchmarks.few_steps RESULTS      reads the videos, writes docs/few_steps.csv, then page and figure
    python -m benchmarks.few_steps times        measures when each chunk is ready, writes docs/few_steps_times.csv
    python -m benchmarks.few_steps              writes the page again from the two tables

The reference of every video is that of 50 steps with the same model, prompt and noise, whatever its own number of steps
(a run's own Original has as many steps as the run). All of them follow the same path from the same noise, so a video of
few steps is an approximation of it, and PSNR says how near it is. Whether the video shows what the prompt says is read
from its frames, without a reference.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.common import composed, prompts_of
from benchmarks.few_steps_page import PAGE, TABLE, TIMES, page, picture
from engine.ledger import Entry
from engine.loop import generate
from engine.row import Row
from eval.adherence import adherence
from eval.reading import read
from store import Record, Store, writing
from terminal import tolerate

REFERENCE = 50  # steps
FIELDS = ("model", "method", "setting", "steps", "prompt", "passes", "gflop", "psnr", "colour", "shape", "direction")
TIMED = {  # settings whose chunks are timed, with the words of the table
    "Fixed, 2 steps": ["model.steps=2", "method=original"],
    "Fixed, 4 steps": ["model.steps=4", "method=original"],
    "Fixed, 8 steps": ["model.steps=8", "method=original"],
    "SCOPE fast, 8 steps": ["model=far_tiny", "model.steps=8", "method=scope", "speed=fast"],
    "DSA-proxy (threshold=0.2), 8 steps": ["model.steps=8", "method=dsa_proxy", "method.threshold=0.2"],
    "DSA (stop=0.15), 8 steps": ["model.steps=8", "method=dsa", "method.stop=0.15"],
}
TIMED_PROMPTS = 3
HIDDEN = ("selective", "order", "computed", "made_for")  # settings that the names of the table leave out


def frames(record: Record) -> np.ndarray:
    """The frames (T, H, W, 3) of a record, uint8."""
    return np.concatenate(list(read(record.path / "frames.mp4")))


def psnr(video: np.ndarray, reference: np.ndarray) -> float:
    """PSNR in dB over all frames; infinite for equal videos."""
    error = float(np.square(video.astype(np.float64) - reference).mean())
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def passes(trace: Sequence[dict]) -> list[int]:
    """How often the model ran for each chunk, clean passes left out."""
    steps = [e for e in trace if e["active"][0] < e["active"][1]]
    ran = [e["unit"] for e in steps if not {"velocity", "guidance"} & set(e["sites"])]
    return [ran.count(unit) for unit in sorted({e["unit"] for e in steps})]


def setting(record: Record) -> str:
    """The settings of the method, without the number of steps."""
    changed = {name.rpartition(".")[2]: v for name, v in record.run["changed"].items() if name.startswith("method.")}
    told = ", ".join(f"{name}={value}" for name, value in sorted(changed.items()) if name not in HIDDEN)
    return " ".join(filter(None, [record.speed, f"({told})" if told else ""]))


def collected(store: Store) -> Iterator[dict[str, object]]:
    """A line of the table per valid video."""
    found = [record for record in store.records() if record.status == "ok"]
    steps = {id(record): int(record.run["produced_by"]["model"]["steps"]) for record in found}
    same = lambda record: (record.run["model"], record.run["prompt"], record.run["seed"])  # noqa: E731
    wanted = {same(r): r for r in found if r.run["method"] == "original" and steps[id(r)] == REFERENCE}
    for key, original in wanted.items():
        reference = frames(original).astype(np.float64)
        for record in [record for record in found if same(record) == key]:
            video = frames(record)
            answer = adherence(video, record.run["prompt"])
            assert answer is not None, f"eval.adherence cannot read the prompt {record.run['prompt']!r}"
            yield {
                "model": record.run["model"],
                "method": record.run["method"],
                "setting": setting(record),
                "steps": steps[id(record)],
                "prompt": record.run["prompt"],
                "passes": " ".join(map(str, passes(record.trace()))),
                "gflop": f"{record.run['flops']['dense'] / 1e9:.4f}",
                "psnr": f"{psnr(video, reference):.3f}",
                **{name: int(bool(getattr(answer, name))) for name in ("colour", "shape", "direction")},
            }


def chunk_times(overrides: Sequence[str]) -> list[float]:
    """Seconds of processor time until each chunk is denoised, from the text on: the median over prompts.

    Processor time of one thread, because it does not depend on what else the machine does. Decoding is left out.
    """
    given = overrides if any(o.startswith("model=") for o in overrides) else ["model=far_tiny_dsa", *overrides]
    run, model, method = composed(given)
    method.check(model)
    model.load()
    found = []
    for seed, prompt in enumerate(prompts_of(run, TIMED_PROMPTS + 1)):
        stamps: dict[int, float] = {}
        begin = time.process_time()
        texts = model.texts([prompt])

        def ready(row: Row, stamps: dict[int, float] = stamps, begin: float = begin) -> None:
            if row.updating and row.step[0] + 1 == row.steps:
                stamps[row.number(row.slots.start)] = time.process_time() - begin

        ledger: list[Entry] = []
        generate(model, method, model.conditioning(prompt, texts), seed, ledger, ready)
        found.append([stamps[unit] for unit in sorted(stamps)])
    return [float(value) for value in np.median(found[1:], 0)]  # the first video also warms up


def write_times() -> None:
    """docs/few_steps_times.csv."""
    with writing(TIMES) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for name, overrides in TIMED.items():
            writer.writerow([name, *(f"{seconds:.4f}" for seconds in chunk_times(overrides))])


def shared(lines: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """The lines of the prompts that all settings of a model have; settings with few prompts are dropped."""
    prompts: dict[tuple[object, ...], set[object]] = {}
    for line in lines:
        prompts.setdefault(_setting(line), set()).add(line["prompt"])
    most = {key[0]: max(len(found) for other, found in prompts.items() if other[0] == key[0]) for key in prompts}
    kept = {key: found for key, found in prompts.items() if 2 * len(found) >= most[key[0]]}
    for key in prompts.keys() - kept.keys():
        print(f"left out, {len(prompts[key])} prompts: {' '.join(map(str, key))}")
    common = {key[0]: set.intersection(*(kept[other] for other in kept if other[0] == key[0])) for key in kept}
    return [line for line in lines if _setting(line) in kept and line["prompt"] in common[line["model"]]]


def _setting(line: dict[str, object]) -> tuple[object, ...]:
    return line["model"], line["method"], line["setting"], line["steps"]


def write_table(results: str) -> None:
    """docs/few_steps.csv."""
    found = shared(list(collected(Store(results, create=False))))
    lines = sorted(found, key=lambda line: [str(line[name]) for name in FIELDS])
    with writing(TABLE) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    print(f"{TABLE.name}: {len(lines)} videos")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write what is asked for; returns 0."""
    tolerate()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["times"]:
        write_times()
    elif given:
        write_table(given[0])
    PAGE.write_text(page(), encoding="utf-8")
    picture()
    return 0


if __name__ == "__main__":
    sys.exit(main())
