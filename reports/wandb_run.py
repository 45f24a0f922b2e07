"""What every run on W&B needs: online or offline, names that W&B takes, and a start that never prompts.

It is used by the logger of sweeps (sweep/log_wandb.py) and by `python -m reports wandb PROJECT`.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unicodedata import category
from urllib.parse import urlsplit

PATIENCE = 20  # seconds to wait for the server before the run is kept offline
LONGEST = 128  # letters of a run's name and of a group, as of a project


def mode(wanted: str) -> str:
    """`online`, `offline` or `disabled`. With auto, it is online only if there is a key, so that W&B never prompts."""
    if wanted != "auto":
        return wanted
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    return "online" if os.environ.get("WANDB_API_KEY") or _in_netrc() else "offline"


def refused(project: str, wanted: str, group: str = "", names: Iterable[str] = (), tags: Iterable[str] = ()) -> str:
    """What W&B would not take, in one line; "" if it takes all. Uses the checks of the package itself, and no network.

    Args:
        project: name of the project.
        wanted: mode, as for `mode`.
        group, names: group and names of the runs. Only the server checks their length and their control characters.
        tags: tags of the runs.
    """
    wandb = package("offline")
    if not project.strip() or project != project.strip():
        return f"project {project!r} is empty or begins or ends with a space; want a name such as scope-harness"
    if not project.strip("."):
        return f"project {project!r} would be read as a folder of its address; want a name such as scope-harness"
    runs = [("group", group), *(("run", name) for name in names)]
    for kind, name in (("project", project), *runs, *(("tag", tag) for tag in tags)):
        if any(category(letter) == "Cc" for letter in name):
            return f"{kind} {name[:40]!r} holds a control character, such as a line break; leave it out"
    for kind, name in runs:
        if len(name) > LONGEST:
            return f"{kind} {name[:20]!r}... has {len(name)} letters; W&B takes at most {LONGEST}"
    try:
        wandb.Settings(project=project, run_tags=tuple(tags), mode=mode(wanted))
    except Exception as error:  # UsageError, or pydantic's, which lists one reason per setting
        listed = getattr(error, "errors", None)
        reasons = listed() if listed else [{"msg": str(error), "loc": ()}]
        return "; ".join(f"{'.'.join(map(str, one['loc']))} {one['msg']}".strip() for one in reasons)
    return ""


def package(wanted: str) -> Any:
    """The package wandb, imported so that it contacts no server if the mode is offline."""
    if wanted == "offline":
        os.environ["WANDB_ERROR_REPORTING"] = "false"
    import wandb

    return wandb


def start(wandb: Any, folder: Path, wanted: str, id: str, **run: Any) -> Any:
    """Start a run in `folder`; offline if the server does not answer or refuses the key. `run`: as for wandb.init."""
    for attempt in dict.fromkeys((wanted, "offline")):
        try:
            return wandb.init(
                dir=str(folder),
                mode=attempt,
                reinit="finish_previous",
                settings=wandb.Settings(console="off", silent=True, init_timeout=PATIENCE, x_disable_stats=True),
                id=id,
                **({"resume": "allow"} if attempt == "online" else {}),
                **run,
            )
        except Exception:
            if attempt == "offline":
                raise
    raise RuntimeError("no mode left")  # the loop returns or raises


def _in_netrc() -> bool:
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
