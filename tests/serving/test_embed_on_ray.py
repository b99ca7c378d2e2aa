"""``crossmodal embed --executor ray``: two actors on this machine, the bytes of one process."""

from pathlib import Path

import pytest
from test_embed_again import contents, cut_off_after, make, write_photographs, write_tar

from crossmodal.serving.embedding import tasks


@pytest.mark.slow
def test_two_actors_make_the_bytes_of_one_process(workspace, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'crossmodal[ray]'")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # actors have niceness 15 and would starve beside other tests
    workspace("scan")
    monkeypatch.setattr(tasks, "SHARD_ROWS", 4)
    write_photographs(tmp_path / "photographs", range(10))
    make(tmp_path / "photographs", "local", form="parquet")
    restore = cut_off_after(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "photographs", "made", form="parquet")
    restore()
    first = Path("made.part/vectors/00000-00000.parquet").resolve()
    written = first.stat().st_mtime_ns
    make(tmp_path / "photographs", "made", form="parquet", executor="ray")
    assert contents(Path("made")) == contents(Path("local"))
    assert Path("made/vectors/00000-00000.parquet").stat().st_mtime_ns == written  # it went on at the second
    files = sorted((tmp_path / "photographs").iterdir())
    write_tar(tmp_path / "x-0.tar", files[:6])
    write_tar(tmp_path / "x-1.tar", files[6:])
    for executor in ("local", "ray"):
        make(tmp_path / "x-{0..1}.tar", executor + " of tars", executor=executor)
    assert contents(Path("ray of tars")) == contents(Path("local of tars"))
