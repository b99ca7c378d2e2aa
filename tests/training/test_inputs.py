"""Files that the key of a training is made of: what the train stage reads, and no more."""

import shutil

import pytest
from trainers import PARAMS

from crossmodal.captions.encoders import training_files
from crossmodal.training.inputs import training_inputs
from crossmodal.workspace import content_key

FILES = ["dataset/manifest.json", "regions/index.json", "captions/index.json", "captions/vocabulary.json"]
FILES += ["bert/model.safetensors", "bert/tokenizer.json", "detector/config.json", "detector/model.safetensors"]
ALWAYS = set(FILES[:3])
BERT, DETECTOR = set(FILES[4:6]), set(FILES[6:])


@pytest.fixture
def outs(tmp_path):
    """Folders of the stages; the content of a file is its name."""
    for name in FILES:
        path = tmp_path / "outs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "outs"


def settings(encoder="bert", *, words=False, trained=0):
    train = PARAMS.train.model_copy(update={"word_dropout": 0.2, "word_dropout_kind": "words" if words else "tokens"})
    return PARAMS.model_copy(
        update={
            "captions": PARAMS.captions.model_copy(update={"encoder": encoder}),
            "regions": PARAMS.regions.model_copy(update={"backend": "grid"}),
            "grid": PARAMS.grid.model_copy(update={"trained": trained}),
            "train": train,
        }
    )


def inputs(params, outs):
    folders = [outs / name for name in ("dataset", "regions", "captions", "detector")]
    return training_inputs(params, *folders, training_files(params, outs / "bert", outs / "captions"))


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, set()),
        ({"words": True}, BERT),  # its tokenizer says which tokens are a word
        ({"encoder": "bert_finetune"}, BERT),
        ({"encoder": "bigru"}, {"captions/vocabulary.json"}),
        ({"encoder": "clip"}, set()),
        ({"trained": 1}, DETECTOR),
        ({"encoder": "bert_finetune", "trained": "all"}, BERT | DETECTOR),
    ],
)
def test_inputs(outs, chosen, expected):
    """A file that is none of them changes no key; each that is one does, wherever the folder lies."""
    params = settings(**chosen)
    key = content_key({}, inputs(params, outs))
    moved = shutil.copytree(outs, outs.parent / "moved")
    assert content_key({}, inputs(params, moved)) == key
    changing = set()
    for name in FILES:
        (moved / name).write_text("another content")
        if content_key({}, inputs(params, moved)) != key:
            changing.add(name)
        (moved / name).write_text(name)
    assert changing == ALWAYS | expected


def test_files_that_are_missing_are_left_to_their_readers(outs):
    shutil.rmtree(outs / "bert")
    (outs / "captions/vocabulary.json").unlink()
    for encoder in ("bert_finetune", "bigru"):
        assert len(inputs(settings(encoder), outs)) == len(ALWAYS)
