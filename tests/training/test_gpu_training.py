"""benchmarks/gpu_training.py, small and on the CPU."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_small_table():
    command = [sys.executable, ROOT / "benchmarks/gpu_training.py", "--small", "--device", "cpu", "--models"]
    out = subprocess.run([*command, "vse_infty", "sgr"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines()]
    assert [row[0] for row in rows] == ["vse_infty", "sgr"]
    # 12 images of 36 regions: 32 halves, 4 coordinates, a byte of mask; some words, and two indices a pair
    assert 0.03 < float(rows[0][head.index("MB copied")]) <= 0.1
    assert float(rows[0][head.index("samples/s")].replace(",", "")) > 0
