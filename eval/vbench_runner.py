"""Runs in the isolated environment, which has VBench and nothing of this project.

    python vbench_runner.py probe          one JSON line: versions, modules found, whether there is a GPU
    python vbench_runner.py PLAN.json      one JSON line per finished job; VBench's output goes to plan["log"]

VBench's own command line is not used: it needs CUDA and NCCL even for one process on a CPU, and returns 0 on failure.
A job is one dimension over one folder of videos, so a failure affects only one dimension.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

PACKAGES = ("vbench", "torch", "torchvision", "transformers", "opencv-python", "decord", "numpy")
MODULES = ("vbench", "vbench2_beta_long", "detectron2", "dreamsim")


def probe():
    """{"python", "versions": {package: version}, "modules": {module: found}, "cuda": bool}."""
    import torch

    versions = {}  # type: dict
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    found = {name: importlib.util.find_spec(name) is not None for name in MODULES}
    return {"python": sys.version.split()[0], "versions": versions, "modules": found, "cuda": torch.cuda.is_available()}


def long_settings(folder, clip_seconds):
    """The keyword arguments of VBench-Long's defaults (only the in-clip score, no scene split, no static filter).

    The wheel does not contain the files that they name, so we write them. The mapping table is only used for the
    clip-to-clip score. Its weight is 0 by default, so any table gives the same result.
    """
    lengths, table, slow_fast = folder / "clip_seconds.json", folder / "identity.yaml", folder / "slow_fast.json"
    lengths.write_text(json.dumps(clip_seconds))
    table.write_text("0.0: 0.0\n1.0: 1.0\n")
    slow_fast.write_text("{}")
    return {
        "clip_length_config": str(lengths),
        "sb_mapping_file_path": str(table),
        "bg_mapping_file_path": str(table),
        "slow_fast_eval_config": str(slow_fast),
        "dev_flag": False,
        "w_inclip": 1.0,
        "w_clip2clip": 0.0,
        "sb_clip2clip_feat_extractor": "dino",
        "bg_clip2clip_feat_extractor": "clip",
        "use_semantic_splitting": False,
        "static_filter_flag": False,
        "num_of_samples_per_prompt": 5,
        "imaging_quality_preprocessing_mode": "longer",
    }


def long_evaluator(job, device, out):
    """A VBenchLong that finds the clips of our videos by their folders.

    Its own search uses the suffix of the first name in the folder, which may be its own `split_clip`. In custom mode it
    uses the file name as the prompt.
    """
    base: Any = importlib.import_module("vbench2_beta_long").VBenchLong

    class Evaluator(base):
        def build_full_info_json(self, videos_path, name, *args, **kwargs):
            entries = json.loads(Path(self.full_info_dir).read_text())
            for entry in entries:
                stems = [Path(file).stem for file, prompt in job["videos"].items() if prompt == entry["prompt_en"]]
                folders = [Path(videos_path) / "split_clip" / stem for stem in stems]
                entry["video_list"] = [str(clip) for folder in folders for clip in sorted(folder.glob("*.mp4"))]
            path = Path(out) / (name + "_full_info.json")
            path.write_text(json.dumps(entries))
            return str(path)

    return Evaluator(device, job["full_info"], str(out))


def evaluate(job, device, out):
    """VBench's result for one dimension: (score, one entry per video)."""
    name, dimension = job["id"], job["dimension"]
    common = {"videos_path": job["folder"], "name": name, "dimension_list": [dimension], "local": True}
    if job["protocol"] == "long":
        mode = "long_vbench_standard" if job["own_prompts"] else "long_custom_input"
        settings = long_settings(out, job["clip_seconds"])
        long_evaluator(job, device, out).evaluate(mode=mode, **common, **settings)
    else:
        evaluator = importlib.import_module("vbench").VBench(device, job["full_info"], str(out))
        if job["own_prompts"]:
            evaluator.evaluate(mode="vbench_standard", **common)
        else:
            evaluator.evaluate(mode="custom_input", prompt_list=job["videos"], **common)
    result = json.loads((out / (name + "_eval_results.json")).read_text())[dimension]
    return result[0], result[-1]  # VBench-Long puts raw clip results between the two


def weight(entry, dimension, frames):
    """The weight of a video in the mean of its dimension. For some dimensions VBench averages over frames."""
    if "cnt_per_video" in entry:
        return entry["cnt_per_video"]
    if "frame_count" in entry:
        return entry["frame_count"]
    if "frame_results" in entry:
        return len(entry["frame_results"])
    return frames - 1 if dimension == "subject_consistency" else 1


def shape(path):
    """(frames, frames per second) of a video, as OpenCV reads it."""
    import cv2

    video = cv2.VideoCapture(str(path))
    found = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), float(video.get(cv2.CAP_PROP_FPS))
    video.release()
    return found


def by_video(job, entries):
    """{file: {"value", "weight", "frames", "fps"}}, and under VBench-Long "clips", the value of each clip in order.

    VBench-Long lists every clip under the name of its video and averages over clips, so the weight of a video is the
    sum of the weights of its clips.
    """
    unit = 100 if job["dimension"] == "imaging_quality" else 1
    grouped = {}  # type: dict
    for entry in entries:
        grouped.setdefault(os.path.basename(entry["video_path"]), []).append(entry)
    videos = {}
    for file, parts in grouped.items():
        frames, fps = shape(Path(job["folder"]) / file)
        shares = [1 if job["protocol"] == "long" else weight(part, job["dimension"], frames) for part in parts]
        products = [share * float(part["video_results"]) for share, part in zip(shares, parts)]  # noqa: B905 (3.9)
        value = sum(products) / sum(shares) / unit
        videos[file] = {"value": value, "weight": sum(shares), "frames": frames, "fps": fps}
        if job["protocol"] == "long":
            videos[file]["clips"] = [float(part["video_results"]) / unit for part in parts]
    return videos


def run(job, device, out):
    """Score one job: {"id", "score", "videos", "seconds"}, or {"id", "error"}."""
    start = time.perf_counter()
    try:
        score, entries = evaluate(job, device, out)
        videos = by_video(job, entries)
    except Exception as error:  # VBench may raise anything; the parent reports it and the next job runs
        traceback.print_exc()
        return {"id": job["id"], "error": f"{type(error).__name__}: {error}"[:500]}
    return {"id": job["id"], "score": float(score), "videos": videos, "seconds": round(time.perf_counter() - start, 3)}


def main(argument):
    channel = os.fdopen(os.dup(1), "w", buffering=1)  # VBench prints to stdout, so our messages need another channel

    def say(message):
        channel.write(json.dumps(message) + "\n")

    if argument == "probe":
        say(probe())
        return
    plan = json.loads(Path(argument).read_text())
    log = os.open(plan["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import torch

    gpu = plan["device"] == "cuda" or (plan["device"] == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if gpu else "cpu")
    say({"device": torch.cuda.get_device_name() if gpu else "cpu"})
    for job in plan["jobs"]:
        out = Path(plan["out"]) / job["id"]
        out.mkdir(parents=True)
        say(run(job, device, out))


if __name__ == "__main__":
    main(sys.argv[1])
