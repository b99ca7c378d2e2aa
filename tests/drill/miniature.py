"""Projects of a few small scenes and small networks."""

import shutil
import subprocess

import forks
import yaml

MINIATURE = {
    "scenes": {"train": 8, "val": 4, "test": 4, "probe": 2, "size": 96, "captions": 2},
    "regions": {"workers": 0, "per_image": 4},
    "detector": {"epochs": 2, "width": 8, "feature_dim": 16},
    "bert": {"vocab_size": 100, "fit_layers": 1, "hidden_size": 16, "heads": 2, "epochs": 3, "batch_size": 4},
    "train": {"epochs": 3, "batch_size": 4, "warmup_steps": 2},
    "tern": {"embed_dim": 16, "visual_dim": 16, "heads": 2, "feed_forward": 16},
    "report": {"gallery_queries": 2},
}


def write_params(folder, changes=None):
    """params.yaml as shipped, but small; ``changes``: further values by dotted key."""
    content = yaml.safe_load((forks.ROOT / "params.yaml").read_text())
    for section, values in MINIATURE.items():
        content[section] |= values
    for key, value in (changes or {}).items():
        section, name = key.split(".")
        content[section][name] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(content))


def make_project(folder):
    """A clone of the repository in which DVC has run nothing yet: the files that stages and DVC read."""
    folder.mkdir()
    write_params(folder)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(forks.ROOT / name, folder / name)
    for name in ("src", "stages"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(forks.ROOT / name, folder / name, ignore=ignored)
    (folder / ".dvc").mkdir()
    shutil.copy(forks.ROOT / ".dvc" / "config", folder / ".dvc" / "config")
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder
