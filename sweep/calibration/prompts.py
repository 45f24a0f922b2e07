"""What a calibration may look at: prompts, and none that results are reported on."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import OmegaConf

from conf.schema import CONF, ConfigError, Prompts, read_prompts
from conf.suite import sets
from store import Store


def check_apart(prompts: Sequence[str], store: Store) -> None:
    """Raises ConfigError if one of `prompts` is in a set that is reported on, or has videos in `store`."""
    reported = {_plain(prompt): "the menu's set" for prompt in _menu()}
    reported |= {_plain(str(record.run.get("prompt"))): f"videos in {store.root}" for record in store.records()}
    both = next((prompt for prompt in prompts if _plain(prompt) in reported), None)
    if both is not None:
        raise ConfigError(
            f"the prompt {both!r} is reported on ({reported[_plain(both)]}), so nothing may be calibrated on it; "
            "use prompts=shapes_calibration or others of your own"
        )


def _menu() -> list[str]:
    """The prompts of all sets that a model takes where none are named."""
    made_for = (name for name, models in sets().items() if models)
    files = [OmegaConf.load(CONF / "prompts" / f"{name}.yaml").file for name in made_for]
    return [prompt for file in files for prompt in read_prompts(Prompts(file=file))]


def _plain(prompt: str) -> str:
    return " ".join(prompt.split()).casefold()
