"""How a script ends whose reader has left."""

import subprocess
import sys

SCRIPT = """
from crossmodal.errors import exits_cleanly

@exits_cleanly
def main():
    for number in range(100_000):
        print(number)

main()
"""


def test_a_reader_that_leaves_is_no_traceback():
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as script:
        assert script.stdout.readline() == b"0\n"
        script.stdout.close()
        assert script.stderr.read() == b""
    assert script.returncode == 141
