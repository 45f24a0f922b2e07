"""W&B: online if a key is set, else offline in RESULTS/.logs/wandb (send it later with `wandb sync`). Never prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conf.schema import Logging
from reports import wandb_run
from sweep.loggers import Told


def send(told: Told, options: Logging, folder: Path) -> None:
    """Send one run and finish it."""
    wanted = mode(options)
    wandb = wandb_run.package(wanted)
    run = start(wandb, told, options, folder, wanted)
    try:
        run.define_metric("iteration")
        run.define_metric("decisions/*", step_metric="iteration")
        for row in told.history:
            run.log(row)
        media: dict[str, Any] = {
            name: wandb.Image(picture if not isinstance(picture, Path) else str(picture))
            for name, picture in told.pictures.items()
        }
        media |= {name: wandb.Video(str(path), format="mp4") for name, path in told.videos.items()}
        media |= {f"tables/{name}": table(wandb, path) for name, path in told.tables.items()}
        if media:
            run.log(media)
        run.summary.update(told.summary)
    finally:
        run.finish()
        wandb.teardown()  # waits until the offline file is complete


def mode(options: Logging) -> str:
    """`online`, `offline` or `disabled`; see reports/wandb_run.py."""
    return wandb_run.mode(options.mode)


def start(wandb: Any, told: Told, options: Logging, folder: Path, wanted: str) -> Any:
    """Start the run; offline if the server does not answer or refuses the key."""
    return wandb_run.start(
        wandb,
        folder,
        wanted,
        told.id,
        project=options.project,
        group=told.group,
        job_type=told.job,
        name=told.name,
        tags=told.tags,
        config=told.config,
    )


def table(wandb: Any, path: Path) -> Any:
    import pandas as pd

    frame = pd.read_csv(path).astype(object)
    return wandb.Table(dataframe=frame.where(frame.notna(), ""), allow_mixed_types=True)
