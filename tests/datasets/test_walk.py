"""Every file of a folder once, linked folders too."""

import os

from crossmodal.datasets.walk import list_files


def test_links_and_circles(tmp_path):
    folder, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    (folder / "b/c").mkdir(parents=True)
    (elsewhere / "deep").mkdir(parents=True)
    for path in (folder / "a.jpg", folder / "b/c/d.jpg", elsewhere / "e.jpg", elsewhere / "deep/f.jpg"):
        path.write_text(path.name)
    (folder / "a-link").symlink_to(folder / "b")  # comes before b, which keeps its own name
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "deep/up").symlink_to(folder)
    (folder / "b/self").symlink_to(folder / "b/self")
    (folder / "link.jpg").symlink_to(elsewhere / "e.jpg")
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_text("name of another encoding")
    files, skipped = list_files(folder)
    assert list(files) == [
        *("a.jpg", "b/c/d.jpg", "b/self", "link.jpg", "linked/deep/f.jpg", "linked/e.jpg"),
    ]
    assert files["linked/e.jpg"].read_text() == "e.jpg"
    assert {item.item: item.reason for item in skipped} == {
        "a-link": "a link to a folder that is read already, as b",
        "linked/deep/up": "a link to a folder that is read already, as .",
        "caf\\udce9.jpg": "its name is not UTF-8",
    }
