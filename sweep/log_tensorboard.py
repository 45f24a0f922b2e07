"""TensorBoard: event files in RESULTS/.logs/tensorboard/<run>. Without videos, because it can only show GIFs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from conf.schema import Logging
from sweep.loggers import Told


def send(told: Told, options: Logging, folder: Path) -> None:
    """Write one run and close it."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / told.name)) as writer:
        about = {"group": told.group, "job_type": told.job, "tags": told.tags, **told.config}
        writer.add_text("config", f"```yaml\n{yaml.safe_dump(about, allow_unicode=True)}\n```")
        for row in told.history:
            for name, value in row.items():
                if name != "iteration":
                    writer.add_scalar(name, value, int(row["iteration"]))
        for name, number in told.summary.items():
            if isinstance(number, str):
                writer.add_text(f"summary/{name}", number)
            else:
                writer.add_scalar(f"summary/{name}", number)
        for name, picture in told.pictures.items():
            pixels = np.asarray(Image.open(picture).convert("RGB")) if isinstance(picture, Path) else picture
            writer.add_image(name, pixels, dataformats="HWC")
        for name, path in told.tables.items():
            writer.add_text(f"tables/{name}", pd.read_csv(path).to_markdown(index=False))
        for name, path in told.videos.items():
            writer.add_text(name, str(path))
