"""Which stages a change of params.yaml touches, as DVC itself sees it against the committed dvc.lock.

A stage is touched when its own parameters or its settings in data/settings changed, or when a stage before it is
touched.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from crossmodal.files.checked_json import write_json
from crossmodal.paths import SETTINGS
from crossmodal.settings.derived import settings_in_use
from crossmodal.settings.params import load_params

ROOT = Path(__file__).resolve().parents[1]
AFTER_REGIONS = {"regions", "train", "evaluate", "report"}
AFTER_BERT = {"bert", "captions", "train", "evaluate", "report"}
ALL = {"download", "detector", "regions", "bert", "captions", "relevance", "train", "evaluate", "report"}

CHANGES = [
    ({"evaluate.top_k": 7}, {"evaluate", "report"}),
    ({"relevance.measure": "none"}, {"relevance", "evaluate", "report"}),
    ({"report.gallery_queries": 5}, {"report"}),
    ({"tern.layers": 4}, {"train", "evaluate", "report"}),
    ({"train.lr": 0.123}, {"train", "evaluate", "report"}),
    ({"regions.per_image": 5}, AFTER_REGIONS),
    ({"regions.executor": "ray", "regions.workers": 0, "regions.max_broken": 3, "ray.workers": 5}, set()),
    ({"detector.lr": 0.5}, {"detector"} | AFTER_REGIONS),
    ({"regions.backend": "torchvision", "bert.source": "fit"}, set()),  # what auto stands for
    ({"regions.backend": "grid"}, {"detector"} | AFTER_REGIONS),
    ({"bottomup.weights": "elsewhere", "bottomup.nms": 0.5, "grid.model": "vit"}, set()),  # other backends
    ({"precomputed.path": "elsewhere", "bert.layers": 2, "bigru.hidden": 7, "bert_finetune.lr_factor": 0.5}, set()),
    ({"bert.epochs": 77}, AFTER_BERT),
    ({"bert.captions": "elsewhere.jsonl"}, AFTER_BERT),
    ({"bert.objective": "pairs"}, AFTER_BERT),
    ({"bert.source": "elsewhere"}, AFTER_BERT),
    ({"captions.max_tokens": 9}, {"captions", "train", "evaluate", "report"}),
    ({"scenes.seed": 5}, ALL),
    ({"model": "vsepp"}, {"train", "evaluate", "report"}),
    ({"captions.encoder": "bigru"}, {"captions", "train", "evaluate", "report"}),
    ({"clip.source": "elsewhere"}, set()),
    (
        {"model": "clip", "regions.backend": "clip", "captions.encoder": "clip", "bert.source": "clip"},
        ALL - {"download", "relevance"},
    ),
    ({"vsepp.embed_dim": 64}, set()),  # another model's section
    ({"flickr8k.max_images": 10}, set()),  # another dataset's section
    ({"download.offline": True, "download.keep_archives": False}, set()),  # cannot change a result
    ({}, set()),
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """The files DVC reads, in a repository of their own."""
    if not (ROOT / "dvc.lock").is_file():
        pytest.skip("dvc.lock is not there: run dvc repro first")
    folder = tmp_path_factory.mktemp("rules")
    for name in ("dvc.yaml", "dvc.lock", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    subprocess.run(["git", "init", "-q", folder], check=True)
    Repo.init(folder).close()
    (folder / SETTINGS).mkdir(parents=True)
    return folder


def touched(folder):
    """Stages whose recorded parameters or settings differ, and all stages that come after one of them."""
    for stage, settings in settings_in_use(load_params(folder / "params.yaml")).items():
        write_json(folder / SETTINGS / f"{stage}.json", settings)
    with Repo(folder) as repo:
        status = repo.status()
        changed = {
            stage.rsplit(":")[-1]
            for stage, problems in status.items()
            for problem in problems
            if isinstance(problem, dict)
            for path, state in problem.get("changed deps", {}).items()
            if path == "params.yaml" or (path.startswith(SETTINGS.as_posix()) and state == "modified")
        } - {"settings"}
        graph = repo.index.graph  # edges lead from a stage to those it depends on
        for stage in graph:
            if stage.name in changed:
                changed |= {other.name for other in _dependents(graph, stage)}
    return changed


def _dependents(graph, stage):
    found, queue = set(), [stage]
    while queue:
        for other in graph.predecessors(queue.pop()):
            if other not in found:
                found.add(other)
                queue.append(other)
    return found


@pytest.mark.parametrize(("changes", "expected"), CHANGES, ids=[str(change) for change, _ in CHANGES])
def test_a_change_touches_these_stages(workspace, changes, expected):
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in changes.items():
        *parents, last = key.split(".")
        section = content
        for parent in parents:
            section = section[parent]
        assert section[last] != value, "the test must change something"
        section[last] = value
    (workspace / "params.yaml").write_text(yaml.safe_dump(content))
    assert touched(workspace) == expected
