"""trackio: a local database in RESULTS/.logs/trackio (`TRACKIO_DIR=... trackio show`), without an account."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from conf.schema import Logging
from sweep.loggers import Told


def send(told: Told, options: Logging, folder: Path) -> None:
    """Write one run and finish it."""
    os.environ["TRACKIO_DIR"] = str(folder)  # read when it is imported
    import trackio

    config = {"job_type": told.job, "tags": told.tags, **told.config}
    trackio.init(
        options.project,
        name=told.name,
        group=told.group,
        config=config,
        resume="allow",
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    try:
        for row in told.history:
            trackio.log(row)
        last: dict[str, Any] = dict(told.summary)
        last |= {name: trackio.Image(picture) for name, picture in told.pictures.items()}
        last |= {name: trackio.Video(str(path), format="mp4") for name, path in told.videos.items()}
        last |= {f"tables/{name}": trackio.Table(dataframe=pd.read_csv(path)) for name, path in told.tables.items()}
        if last:
            trackio.log(last)
    finally:
        trackio.finish()
