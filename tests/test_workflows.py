"""The workflows under .github: pinned, least privileges, no text of others' in a shell, and what they call exists."""

import re
from pathlib import Path

import pytest
import yaml

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
