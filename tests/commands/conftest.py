"""``crossmodal`` run within the test's process."""

import sys

import pytest

from crossmodal import cli


@pytest.fixture
def run(monkeypatch, capsys):
    """Run ``crossmodal`` with arguments: exit code, stdout, stderr."""

    def _run(*arguments):
        monkeypatch.setattr(sys, "argv", ["crossmodal", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return _run
