"""Files that others made: every single change of what BERT's, CLIP's and the matcher's folders say; large claims.

``make test`` tries a part of them, see tests/files/test_hub_models.py, tests/models/test_hostile_matcher.py and
tests/features/test_hostile_store.py.
"""

import gzip
import json
import os
import resource
import shutil
import subprocess
import sys

import forks
import pytest

pytestmark = pytest.mark.slow

OTHER_TYPES = (None, True, -1, 2**40, 1.5, "text", [], {}, ["a"], {"a": 1}, 0)
MEMORY = 12 * 2**30  # bytes of addresses for a process: what it claims counts, not what it touches

READ = """
import json, sys
from pathlib import Path
from crossmodal.captions.query import SentenceReader
from crossmodal.errors import UserError

path, cases = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
good, refused = json.loads(path.read_text()), 0
for place, value in cases:
    content = json.loads(json.dumps(good))
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(content))
    try:
        found = SentenceReader("bert", path.parent, Path("none"), 20)("a small red circle")
        assert found.features.isfinite().all(), (place, value)
    except UserError as error:
        assert "\\n" not in str(error) and len(str(error)) < 700, (place, value, str(error))
        refused += 1
print(refused)
"""


def single_changes(content, path=()):
    """Paths of values; of long lists and dicts, such as a vocabulary, the first three stand for all."""
    items = list(content.items() if isinstance(content, dict) else enumerate(content))
    for key, value in items if len(items) < 30 else items[:3]:
        yield [*path, key]
        if isinstance(value, dict | list):
            yield from single_changes(value, (*path, key))


def limited():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_every_single_change_of_a_bert_folder(pristine, tmp_path, name):
    folder = shutil.copytree(pristine / "models/bert", tmp_path / "bert")
    content = json.loads((folder / name).read_text())
    cases = [(place, value) for place in single_changes(content) for value in OTHER_TYPES]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    command = [sys.executable, "-c", READ, str(folder / name), str(tmp_path / "cases.json")]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(forks.ROOT / "src")},
        capture_output=True,
        text=True,
        preexec_fn=limited,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > len(cases) // 20


def test_a_tar_with_a_gigabyte_of_zeros_after_its_end(tmp_path):
    from assertions import raises_naming

    from crossmodal.datasets.archives.unpack import unpack

    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(1 << 10):
            file.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with raises_naming(path, "16,777,216 bytes"):
        unpack(path, tmp_path / "out", lambda member: member)
    assert not list((tmp_path / "out").iterdir())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes
