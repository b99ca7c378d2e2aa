"""What tests start as processes of their own: DVC in a project, and a stage as a person starts it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def start_dvc(folder, *arguments):
    """``dvc`` in a project with the project's own code, its errors among what it prints; a group of its own to kill.

    DVC sets DVC_ROOT for its stages: that of the test around must not reach it.
    """
    environment = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"}
    environment |= {"PYTHONPATH": str(folder / "src"), "MLFLOW_TRACKING_URI": "", "DVC_NO_ANALYTICS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def dvc(folder, *arguments, code=0):
    """What ``dvc`` prints; it has to end with this code."""
    process = start_dvc(folder, *arguments)
    text, _ = process.communicate(timeout=600)
    assert process.returncode == code, text
    return text


def run_stage(stage, folder, *arguments):
    """Run a stage of this repository in a folder to its end, which must not be a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "src"]))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done
