"""Files that determine a trained matcher, besides settings and source files: the inputs of its key."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from crossmodal.runtime import setting_path
from crossmodal.settings.derived import trains_backbone
from crossmodal.settings.params import Params


def training_inputs(
    params: Params, dataset: Path, regions: Path, captions: Path, detector: Path, text: Iterable[Path]
) -> list[Path]:
    """Files whose bytes a training depends on, for ``content_key``.

    Weights that it starts from are among them: else a killed training would resume from those of another network.

    Args:
        dataset, regions, captions, detector: folders of these stages.
        text: what the caption encoder reads besides its store, see ``captions.encoders.training_files``; files that
            are missing are left out, their readers say so.
    """
    files = [dataset / "manifest.json", regions / "index.json", captions / "index.json"]
    files += [path for path in text if path.is_file()]
    if trains_backbone(params):
        files += [path for path in sorted(detector.glob("*")) if path.is_file()]
    if isinstance(params.train.mismatched, str):
        files.append(setting_path(params.train.mismatched))
    return files
