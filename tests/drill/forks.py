"""Stages as processes of their own that start at once: forks of a server that has imported what they need.

A stage's imports take seconds and its miniature work a tenth of one, so that a kill at a random moment of an ordinary
start would nearly always hit an import.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# All but settings, which writes four small files in a moment; the others read params.yaml themselves.
STAGES = ("download", "detector", "regions", "bert", "captions", "relevance", "train", "evaluate", "report")
OUTS = {
    "download": "data/dataset",
    "detector": "models/detector",
    "regions": "data/regions",
    "bert": "models/bert",
    "captions": "data/captions",
    "relevance": "data/relevance",
    "train": "models/matcher",
    "evaluate": "results/evaluation",
    "report": "results/report",
}
_PATIENCE = 120  # seconds: a stage that takes longer hangs


@dataclass(frozen=True)
class Done:
    """What a stage came to: exit code (negative: a signal's number), what it printed."""

    code: int
    out: str
    err: str

    def is_clear(self) -> bool:
        """Whether it ended well, or with an error of one or two lines that a user is meant to read."""
        lines = [line for line in self.err.splitlines() if not line.startswith("warning:")]
        said = self.code == 2 and 1 <= len(lines) <= 2 and lines[0].startswith("error: ")
        return "Traceback" not in self.err and (self.code == 0 or said)


class Stage:
    """A stage that runs in ``folder``, the root of a project, with its own process group."""

    def __init__(self, process: ForkServerProcess, log: Path) -> None:
        self.process, self.log = process, log
        self.started = time.monotonic()

    def kill(self) -> None:
        """SIGKILL to the stage and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def wait(self) -> Done:
        """Wait for the end; a stage that hangs is killed, and the test fails."""
        self.process.join(_PATIENCE)
        hung = self.process.is_alive()
        self.kill()
        self.process.join()
        assert not hung, f"no end after {_PATIENCE} s: {self.log.with_suffix('.err').read_text()}"
        texts = [self.log.with_suffix(suffix).read_text() for suffix in (".out", ".err")]
        return Done(self.process.exitcode, *texts)


def start(stage: str, folder: Path, prepare: Callable[[], None] | None = None, **environment: str) -> Stage:
    """Start a stage; ``prepare`` (a module's function) is called in the process before it, in ``folder``."""
    log = folder / f"{stage}-{time.monotonic_ns()}"
    environment = {"DVC_ROOT": str(folder), "MLFLOW_TRACKING_URI": "", **environment}
    ready, tell = multiprocessing.Pipe(duplex=False)
    process = _context().Process(target=_run, args=(stage, folder, prepare, environment, log, tell))
    process.start()
    tell.close()
    ready.recv()  # the process has its own group from here on
    return Stage(process, log)


def run(stage: str, folder: Path, prepare: Callable[[], None] | None = None, **environment: str) -> Done:
    """Run a stage to its end."""
    return start(stage, folder, prepare, **environment).wait()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path in there."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def outs(folder: Path, stage: str) -> dict[str, bytes]:
    """The files of a stage's out, and of the report those in git too."""
    found = {"": b"there"} if (folder / OUTS[stage]).is_dir() else {}
    found |= contents(folder / OUTS[stage])
    return found | (contents(folder / "metrics") if stage == "report" else {})


def unfinished(folder: Path) -> list[str]:
    """What is left in .resume but for the locks, which are empty files."""
    return [path.name for path in (folder / ".resume").glob("*/*") if path.is_dir() or path.stat().st_size]


def can_mount() -> bool:
    """Whether this user may mount in a name space of its own, as ``prepare`` functions do."""
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def own_mounts() -> None:
    """Leave the other processes' mounts: what is mounted from here on is this process's and goes with it."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).unshare(0x00020000):  # CLONE_NEWNS
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def _context() -> multiprocessing.context.ForkServerContext:
    """The server, started on first use; it keeps the environment that it was started in."""
    context = multiprocessing.get_context("forkserver")
    paths = [str(ROOT), str(ROOT / "src"), str(Path(__file__).parent)]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # the preload looks here
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
    context.set_forkserver_preload(["forks", "timm", "mlflow", *(f"stages.{stage}" for stage in STAGES)])
    return context


def _run(
    stage: str,
    folder: Path,
    prepare: Callable[[], None] | None,
    environment: dict[str, str],
    log: Path,
    tell: multiprocessing.connection.Connection,
) -> None:
    os.setsid()
    for number, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(log.with_suffix(suffix), os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    os.environ |= environment
    sys.argv = [stage]
    tell.send(True)
    tell.close()
    if prepare:
        prepare()
    importlib.import_module(f"stages.{stage}").main()
