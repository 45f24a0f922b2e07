"""Train DSA's confidence head together with the small AnyFlow-FAR model: `python -m models.train_far_dsa`.

It starts from the trained `far_tiny`, whose transformer goes on learning any number of steps while the head learns how
far the present estimate is from where all steps end (models/train_far_confidence.py). The folder it writes is a whole
model, with the head in `head.safetensors`. It can be stopped at any moment and run again. To get a folder from a
training that was stopped, run it with `joint.steps` set to the steps that are done.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path

import hydra
import torch
from diffusers import AnyFlowFARTransformer3DModel
from omegaconf import DictConfig

from engine.confidence_head import save_head
from models.far.plan import FarPlan
from models.far.settings import Far
from models.train_far import source_of, write_folder
from models.train_far_confidence import Confidence, train_joint
from models.train_far_dsa_card import write_card
from models.train_far_forward import Trainee
from models.train_folder import plain
from terminal import tolerate

HEAD = "head.safetensors"
FEWEST = 4  # steps; with two, the first pass is followed by the last one anyway


def grids(path_steps: int) -> list[int]:
    """The numbers of steps whose times lie on a path of `path_steps` steps.

    >>> grids(16)
    [4, 8, 16]
    """
    return [n for n in range(FEWEST, path_steps + 1) if path_steps % n == 0 and math.log2(n).is_integer()]


def build(config: DictConfig, work: Path) -> tuple[AnyFlowFARTransformer3DModel, Confidence]:
    """Run what is not yet done of the joint training; returns the trained transformer and head."""
    start = Path(config.start)
    torch.manual_seed(config.seed)
    model = AnyFlowFARTransformer3DModel.from_pretrained(start / "transformer", torch_dtype=torch.float32)
    source = source_of(config, work)
    width = model.config.num_attention_heads * model.config.attention_head_dim
    confidence = Confidence(2 * width + 2, config.hidden, start=-1.0)
    teacher = Trainee(copy.deepcopy(model))
    common = {"seed": config.seed, "checkpoint_every": config.checkpoint_every, "work": work}
    train_joint(Trainee(model), confidence, teacher, source, shift=config.shift, **plain(config.joint), **common)
    return model.eval(), confidence.eval()


def write_head(confidence: Confidence, config: DictConfig, out: Path) -> None:
    """Write the head beside the transformer that it was trained with, whose weights it names."""
    folder = str(out.resolve())
    settings = Far(name=out.name, checkpoint=folder, height=config.size, width=config.size, precision="fp32")
    weights = FarPlan(settings, torch.device("cpu")).weights_id
    save_head(
        confidence.head,
        out / HEAD,
        {"model": out.name, "weights": weights, "steps": grids(config.joint.path_steps)},
    )


@hydra.main(version_base="1.3", config_path="../conf/train", config_name="far_tiny_dsa")
def main(config: DictConfig) -> None:
    """Run what is not yet done, and write the model folder, the head and the card."""
    torch.set_num_threads(config.threads)
    work, out = Path(config.work), Path(config.out)
    model, confidence = build(config, work)
    write_folder(model, Path(config.start), config.shift, out)
    write_head(confidence, config, out)
    write_card(config, work, out, len(confidence.mean), grids(config.joint.path_steps))


if __name__ == "__main__":
    tolerate()
    main()
