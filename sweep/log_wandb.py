"""W&B: online if a key is set, else offline in RESULTS/.logs/wandb (send it later with `wandb sync`). Never prompts."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from conf.schema import Logging
from sweep.loggers import Told

PATIENCE = 20  # seconds to wait for the server before the run is kept offline


def send(told: Told, options: Logging, folder: Path) -> None:
    """Send one run and finish it."""
    wanted = mode(options)
    if wanted == "offline":
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # otherwise it contacts its own server
    import wandb

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
    """`online`, `offline` or `disabled`. With auto, it is online only if there is a key, so that W&B never prompts."""
    if options.mode != "auto":
        return options.mode
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    return "online" if os.environ.get("WANDB_API_KEY") or _in_netrc() else "offline"


def _in_netrc() -> bool:
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def start(wandb: Any, told: Told, options: Logging, folder: Path, wanted: str) -> Any:
    """Start the run; offline if the server does not answer or refuses the key."""
    for attempt in dict.fromkeys((wanted, "offline")):
        try:
            return wandb.init(
                project=options.project,
                group=told.group,
                job_type=told.job,
                name=told.name,
                tags=told.tags,
                config=told.config,
                dir=str(folder),
                mode=attempt,
                reinit="finish_previous",
                settings=wandb.Settings(console="off", silent=True, init_timeout=PATIENCE, x_disable_stats=True),
                **({"id": told.id, "resume": "allow"} if attempt == "online" else {"id": told.id}),
            )
        except Exception:
            if attempt == "offline":
                raise
    raise RuntimeError("no mode left")  # the loop returns or raises


def table(wandb: Any, path: Path) -> Any:
    import pandas as pd

    frame = pd.read_csv(path).astype(object)
    return wandb.Table(dataframe=frame.where(frame.notna(), ""), allow_mixed_types=True)
