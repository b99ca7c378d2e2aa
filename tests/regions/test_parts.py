"""Parts by several workers, put together: the bytes of one process."""

import pytest
from assertions import raises_naming
from filelock import FileLock
from noise_images import MeanColour, same_bytes

from crossmodal.features.store import FeatureStore
from crossmodal.regions.extraction.extract import Extraction, extract_regions
from crossmodal.regions.extraction.jobs import PARTS, extract_all, extract_shard
from crossmodal.regions.extraction.parts import cut_into_parts, extract_part, merge_parts, part_folder
from crossmodal.settings.features import RayCluster

pytestmark = pytest.mark.usefixtures("small_windows")
HOW = Extraction(batch_size=2, backend="test", max_broken=2)
LOCAL = {"executor": "local", "cluster": RayCluster(address=None, workers=2, gpus=0)}


def test_parts_are_whole_windows():
    assert cut_into_parts(20, 2) == [range(0, 4), range(4, 8), range(8, 12), range(12, 16), range(16, 20)]
    assert cut_into_parts(7, 3) == [range(0, 6), range(6, 7)]  # windows of 3: two of them make a part


@pytest.mark.parametrize("workers", [1, 3, 7])
def test_shards_put_together_are_the_store_of_one_process(tmp_path, noise, workers):
    noise.image_path(5).write_bytes(b"hello")
    noise.image_path(13).write_bytes(b"hello")
    extract_regions(noise, MeanColour(), tmp_path / "whole", HOW)
    work = tmp_path / "work"
    for worker in reversed(range(workers)):
        line = extract_shard(noise, MeanColour, work, f"{worker}/{workers}", HOW)
    assert line.endswith("none is missing, dvc repro regions merges them")

    def no_network():
        raise AssertionError("every part is there")

    out = extract_all(noise, no_network, work, HOW, **LOCAL)
    same_bytes(tmp_path / "whole", out)
    assert FeatureStore(out).left_out == {5, 13}


def test_missing_parts_are_made_where_they_are_put_together(tmp_path, noise, capsys):
    extract_regions(noise, MeanColour(), tmp_path / "whole", HOW)
    line = extract_shard(noise, MeanColour, tmp_path / "work", "1/3", HOW)
    assert line == "shard 1/3: 2 of 5 parts; 3 still missing"
    network = MeanColour()
    out = extract_all(noise, lambda: network, tmp_path / "work", HOW, **LOCAL)
    assert sum(map(len, network.calls)) == 12
    assert "3 of 5 parts are missing, extracting them here" in capsys.readouterr().out
    same_bytes(tmp_path / "whole", out)


def test_a_part_goes_on_after_it_was_cut_off(tmp_path, noise, monkeypatch):
    monkeypatch.setattr("crossmodal.features.store.SHARD_ROWS", 2)
    monkeypatch.setattr("crossmodal.regions.extraction.extract.WINDOW", 2)

    class DyingError(Exception):
        pass

    class Dying(MeanColour):
        def __call__(self, images):
            if len(self.calls) == 1:
                raise DyingError
            return super().__call__(images)

    with pytest.raises(DyingError):
        extract_part(noise, Dying(), tmp_path, range(4, 8), HOW, wait=True)
    network = MeanColour()
    extract_part(noise, network, tmp_path, range(4, 8), HOW, wait=True)
    assert sum(map(len, network.calls)) == 2
    assert len(FeatureStore(part_folder(tmp_path, range(4, 8)))) == 4


def test_a_part_in_other_hands_is_left_alone(tmp_path, noise):
    folder = tmp_path / "work" / PARTS
    folder.mkdir(parents=True)
    with FileLock(part_folder(folder, range(4, 8)).with_suffix(".lock"), is_singleton=False):
        line = extract_shard(noise, MeanColour, tmp_path / "work", "1/5", HOW)
    assert line == "shard 1/5: 1 of 5 parts, 1 being extracted by others; 5 still missing"


def test_broken_images_of_all_parts_count_together(tmp_path, noise):
    for row in (1, 6, 15):
        noise.image_path(row).write_bytes(b"hello")
    parts = cut_into_parts(20, 2)
    for rows in parts:
        extract_part(noise, MeanColour(), tmp_path, rows, HOW, wait=True)
    with raises_naming("3", "regions.max_broken", "2", "noise1"):
        merge_parts(tmp_path, parts, tmp_path / "out", max_broken=2)
