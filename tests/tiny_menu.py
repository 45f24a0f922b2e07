"""A folder of the menu with the tiny model, and an experiment that is run on it in this process."""

from dataclasses import asdict, replace

import yaml

from tests.test_run import call
from tests.tiny import TINY


def write(folder, **changes):
    """Write `model/tiny.yaml`, the tiny model with `changes`, into `folder`, for --config-dir. Returns the folder."""
    (folder / "model").mkdir(exist_ok=True)
    settings = {"_target_": "models.skyreels.backbone.SkyReelsV2", **asdict(replace(TINY, **changes))}
    (folder / "model" / "tiny.yaml").write_text(yaml.safe_dump(settings))
    return folder


def run_experiment(name, menu, results, *more):
    """`python run.py experiment=NAME` on one prompt and the tiny model of `menu`."""
    return call(
        *["--config-dir", menu, f"experiment={name}", "model=tiny", f"results={results}", "isolate=false"],
        *["prompts.limit=1", "device=cpu", *more],
    )
