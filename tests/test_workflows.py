"""The workflows under .github: pinned, least privileges, no text of others' in a shell, and what they call exists."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from git_commands import git

from crossmodal.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / ".github/workflows").glob("*.y*ml"))
WORKFLOWS = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES}
JOBS = {f"{name}:{job}": content for name, flow in WORKFLOWS.items() for job, content in flow["jobs"].items()}
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / ".ci").iterdir())}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WRITES = {"pull-request.yml:comment": {"pull-requests": "write"}}  # what may be written, and by whom


def triggers(flow):
    """YAML 1.1 takes the key ``on`` for true."""
    on = flow[True]
    return {on} if isinstance(on, str) else set(on)


def commands(job):
    return [step["run"] for step in job["steps"] if "run" in step]


def executable(path, text):
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def test_there_are_workflows():
    assert set(WORKFLOWS) == {"ci.yml", "nightly.yml", "pull-request.yml"}


def test_every_action_is_pinned_by_commit_with_its_version():
    pins = {}
    for path in FILES:
        for line in re.findall(r"uses:.*", path.read_text(encoding="utf-8")):
            pin = re.fullmatch(r"uses: ([\w.-]+/[\w.-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line)
            assert pin, f"{path.name}: {line}"
            action, *rest = pin.groups()
            assert pins.setdefault(action, rest) == rest, f"{path.name}: {action} is pinned differently elsewhere"
    uses = [step["uses"].split("@")[0] for job in JOBS.values() for step in job["steps"] if "uses" in step]
    assert set(uses) == set(pins)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_permissions_of_a_workflow(name):
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    assert "concurrency" in WORKFLOWS[name]
    assert "pull_request_target" not in triggers(WORKFLOWS[name])


@pytest.mark.parametrize("name", JOBS)
def test_a_job(name):
    job = JOBS[name]
    assert isinstance(job["timeout-minutes"], int)
    assert job.get("permissions") == WRITES.get(name)
    checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
    if name in WRITES:
        assert not checkouts, "a job that may write runs no code of a pull request's"
    else:
        assert "github.token" not in str(job)
    assert "secrets." not in str(job)


@pytest.mark.parametrize("name", JOBS)
def test_no_expression_in_a_script(name):
    """Names of branches and titles are text of others': they reach a shell as variables of its environment only."""
    for command in commands(JOBS[name]):
        assert "${{" not in command
        unquoted = re.sub(r"'[^']*'|\"[^\"]*\"", "", command)
        assert "$" not in unquoted, f"a variable without quotes: {command}"


@pytest.mark.parametrize("name", [name for name, job in JOBS.items() if "self-hosted" in str(job["runs-on"])])
def test_own_machines_are_for_their_owner(name):
    """A pull request of a stranger's must not run on them, nor a fork's schedule wait for one that is not there."""
    flow = WORKFLOWS[name.split(":")[0]]
    assert triggers(flow) == {"schedule", "workflow_dispatch"}
    assert JOBS[name]["if"] == "vars.GPU_RUNNER != ''"


def test_the_own_machine_is_the_nightly_one():
    assert [name for name, job in JOBS.items() if job["runs-on"] != "ubuntu-latest"] == ["nightly.yml:gpu"]


def test_every_make_target_exists():
    targets = set(re.findall(r"(?m)^([a-z-]+):", MAKEFILE))
    texts = {name: "\n".join(commands(job)) for name, job in JOBS.items()} | SCRIPTS
    called = {(name, target) for name, text in texts.items() for target in re.findall(r"(?m)^\s*make ([\w-]+)", text)}
    assert {target for _, target in called} >= {"lint", "lock-check", "test", "smoke", "diff", "gate", "nightly", "ci"}
    assert not {(name, target) for name, target in called if target not in targets}


def test_every_command_exists():
    texts = {name: "\n".join(commands(job)) for name, job in JOBS.items()} | SCRIPTS | {"Makefile": MAKEFILE}
    called = {
        (name, command) for name, text in texts.items() for command in re.findall(r"\bcrossmodal ([a-z-]+)", text)
    }
    assert {command for _, command in called} >= {"gate", "plots", "reproduce"}
    assert not {(name, command) for name, command in called if command not in COMMANDS}


def test_make_ci_is_what_ci_runs():
    """The drill has a job of its own, which nothing waits for and which waits for nothing."""
    parts = re.search(r"(?m)^ci: (.*?) ##", MAKEFILE).group(1).split()
    check, drill = JOBS["ci.yml:check"], JOBS["ci.yml:drill"]
    assert commands(check) == [f"make {part}" for part in parts if part != "drill"]
    assert commands(drill) == ["make drill"]
    assert "drill" in parts
    assert not {"needs", "if"} & (check.keys() | drill.keys())


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("echo Data and pipelines are up to date.", 0, ""),
        ("echo \"Running stage 'train':\"", 2, "error: dvc.lock is behind"),
        ("echo 'ERROR: dvc.yaml is invalid' >&2; exit 255", 2, "ERROR: dvc.yaml is invalid"),  # no lock was checked
    ],
)
def test_lock_check(tmp_path, script, code, said):
    """With a dvc in place of DVC, in a folder whose .venv is up to date."""
    (tmp_path / "Makefile").write_text(MAKEFILE, encoding="utf-8")
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("python", ".installed"):
        (tmp_path / ".venv/bin" / name).touch()
    executable(tmp_path / ".venv/bin/dvc", f"#!/bin/sh\n{script}\n")
    done = subprocess.run(["make", "lock-check"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code
    assert said in done.stderr


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """The working folder is a repository whose branch work left origin/main one commit ago."""
    monkeypatch.chdir(tmp_path)

    git("init", "-q", "-b", "work")
    git("commit", "-q", "--allow-empty", "-m", "common")
    git("commit", "-q", "--allow-empty", "-m", "of main")
    git("update-ref", "refs/remotes/origin/main", "HEAD")
    git("reset", "-q", "--hard", "HEAD~1")
    git("commit", "-q", "--allow-empty", "-m", "of the branch")


def test_a_pull_request_is_compared_with_where_it_left(repository, tmp_path):
    step = next(step for step in JOBS["pull-request.yml:figures"]["steps"] if "merge-base" in step.get("run", ""))
    assert step["env"] == {"TIP": "${{ github.event.pull_request.base.sha }}"}
    environment = os.environ | {"TIP": git("rev-parse", "origin/main"), "GITHUB_ENV": "variables"}
    assert step["shell"] == "bash"  # GitHub's way to ask for pipefail
    bash = ["bash", "-eo", "pipefail", "-c", step["run"]]
    subprocess.run(bash, check=True, env=environment)
    assert (tmp_path / "variables").read_text() == f"BASE={git('rev-parse', 'HEAD~1')}\n"
    assert subprocess.run(bash, env=environment | {"TIP": "nowhere"}, capture_output=True).returncode


@pytest.mark.parametrize(("gate", "fails"), [(0, False), (1, False), (2, True)])
def test_diff_shows_a_fall_and_ends_on_a_mistake(repository, tmp_path, gate, fails):
    """With commands in place of crossmodal and dvc that say how they were called."""
    for folder in (".ci", "bin"):
        (tmp_path / folder).mkdir()
    executable(tmp_path / ".ci/diff", SCRIPTS["diff"])
    executable(tmp_path / "bin/crossmodal", f'#!/bin/sh\necho "crossmodal $*"\n[ "$1" != gate ] || exit {gate}\n')
    executable(tmp_path / "bin/dvc", '#!/bin/sh\necho "dvc $*"\n')
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "BASE": ""}
    done = subprocess.run([".ci/diff"], capture_output=True, text=True, env=environment)
    assert (done.returncode != 0) == fails
    shown = (tmp_path / "diff.md").read_text()
    assert "crossmodal gate origin/main" in shown
    assert ("dvc metrics diff origin/main" in shown) == (not fails)
    if not fails:
        assert done.stdout == shown
        git("branch", "main")
        subprocess.run([".ci/diff"], check=True, capture_output=True, env=environment)
        assert "crossmodal plots main " in (tmp_path / "diff.md").read_text()


def test_the_gate_comes_after_the_comment_has_its_text():
    """A fall fails the job, but the tables are made and kept all the same."""
    steps = JOBS["pull-request.yml:figures"]["steps"]
    names = [step.get("id") or step.get("run") or step["uses"].split("@")[0] for step in steps]
    assert names[-3:] == ["diff", "actions/upload-artifact", "make gate"]
    comment = JOBS["pull-request.yml:comment"]
    assert comment["needs"] == "figures"
    assert "!cancelled()" in comment["if"]
    assert "head.repo.full_name == github.repository" in comment["if"]
