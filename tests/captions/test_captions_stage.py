"""The captions stage, cut off and run again."""

from pathlib import Path

import pytest
import yaml
from assertions import assert_names

from crossmodal.captions import base
from crossmodal.captions.vocabulary import SPECIAL, Vocabulary
from crossmodal.datasets.records import ImageRecord, write_dataset
from crossmodal.features.store import FeatureStore
from stages import captions

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Settings with a vocabulary of another folder, and 600 images of five captions: more than a shard."""
    monkeypatch.chdir(tmp_path)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["captions"] |= {"encoder": "bigru", "vocabulary": "imported/vocabulary.json"}
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    for name in ("data/dataset", "models/bert", "imported"):
        Path(name).mkdir(parents=True)
    records = [ImageRecord(f"{n}", f"images/{n}.jpg", "train", 4, 4, ("dog cat",) * 5) for n in range(600)]
    write_dataset(Path("data/dataset"), "pets", records)


def cut_off(monkeypatch):
    """Run it and end it when all captions are there, but not the index."""
    with monkeypatch.context() as patch:
        patch.setattr(base.StoreWriter, "close", lambda *_: exit("killed"))
        with pytest.raises(SystemExit):
            captions.main()


@pytest.mark.usefixtures("workspace")
def test_it_does_not_go_on_with_another_vocabulary(monkeypatch):
    """Whose file has the same name."""
    Vocabulary([*SPECIAL, "dog", "cat"]).save(Path("imported/vocabulary.json"))
    cut_off(monkeypatch)
    Vocabulary([*SPECIAL, "cat", "dog"]).save(Path("imported/vocabulary.json"))
    captions.main()
    store = FeatureStore(Path("data/captions"))
    assert len(store) == 3000
    assert {tuple(store.read(row, "token_ids")) for row in range(3000)} == {(1, 5, 4, 2)}


@pytest.mark.usefixtures("workspace")
def test_a_vocabulary_that_is_not_there_is_named(capsys):
    with pytest.raises(SystemExit) as end:
        captions.main()
    assert end.value.code == 2
    assert_names(capsys.readouterr().err, "captions.vocabulary", "imported/vocabulary.json")
