"""``crossmodal embed --executor ray``: two actors on this machine, the bytes of one process."""

from pathlib import Path

import pytest
from test_embed_again import contents, cut_off_after, make, write_photographs, write_tar


@pytest.mark.slow
def test_two_actors_go_on_after_one_process_and_make_its_bytes(workspace, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'crossmodal[ray]'")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # actors have niceness 15 and would starve beside other tests
    workspace("scan")
    write_photographs(tmp_path / "photographs", range(10))
    files = sorted((tmp_path / "photographs").iterdir())
    for number in range(4):
        write_tar(tmp_path / f"x-{number}.tar", files[3 * number : 3 * number + 3])
    tars = tmp_path / "x-{0..3}.tar"
    make(tars, "local", form="parquet")
    restore = cut_off_after(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        make(tars, "made", form="parquet")
    restore()
    written = Path("made.part/vectors/00000-00000.parquet").stat().st_mtime_ns
    make(tars, "made", form="parquet", executor="ray")
    assert contents(Path("made")) == contents(Path("local"))
    assert Path("made/vectors/00000-00000.parquet").stat().st_mtime_ns == written
