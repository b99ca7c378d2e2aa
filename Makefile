# make help lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Neither DVC nor MLflow reports usage from here.
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help setup repro ci test drill smoke lint format lock-check diff gate nightly gpu-figures requirements clean
.DEFAULT_GOAL := help

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(BIN)/.installed ## .venv with the pinned packages

repro: $(BIN)/.installed ## The whole pipeline: dvc repro (rerun: only what changed)
	@[ -d .dvc ] || { echo 'error: no .dvc folder here: run dvc init --no-scm, then make repro' >&2; exit 2; }
	@git rev-parse 2> /dev/null || dvc config core.no_scm | grep -qi true || \
	  { echo 'error: no git repository here, as in a zip download: run git init, then make repro' >&2; exit 2; }
	dvc repro

ci: lint lock-check test drill smoke ## All that CI runs before a change lands

test: $(BIN)/.installed-dev ## The test suite, all but the drill
	OMP_NUM_THREADS=1 python -m pytest -n 2 tests --ignore tests/drill

drill: $(BIN)/.installed-dev ## Stages killed, disks full, files damaged, eight clients at once: does everything come out the same?
	OMP_NUM_THREADS=1 python -m pytest tests/drill

smoke: $(BIN)/.installed ## The pipeline on a few small scenes in a clean clone
	.ci/smoke

lint: $(BIN)/.installed-dev ## ruff: rules and formatting
	ruff check .
	ruff format --check .

format: $(BIN)/.installed-dev ## ruff: mend what can be mended
	ruff check --fix .
	ruff format .

lock-check: $(BIN)/.installed ## Does dvc.lock belong to dvc.yaml, params.yaml and the code?
	@log=$$(dvc repro --dry --allow-missing) || exit 1; if echo "$$log" | grep 'Running stage'; then \
	  echo 'error: dvc.lock is behind: run dvc repro and commit dvc.lock with metrics/' >&2; exit 1; fi

diff: $(BIN)/.installed ## diff.md: metrics, curves and gate against BASE=main; page of plots in dvc_plots/
	.ci/diff

gate: $(BIN)/.installed ## Fails where a figure fell below BASE=main by more than params.yaml allows
	crossmodal gate $${BASE:+"$$BASE"}

nightly: $(BIN)/.installed ## On a GPU: the pipeline, or RECIPE=name SETTINGS="-S key=value", and how it compares
	.ci/nightly

gpu-figures: $(BIN)/.installed ## On a GPU: speed of training steps and region extraction, into docs/gpu.md; PUBLISHED="FOLDER ..."
	python benchmarks/gpu_figures.py --published $(PUBLISHED)

requirements: ## Rewrite the locks from pyproject.toml (needs uv)
	echo uv | uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header - \
	  -o requirements-uv.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --custom-compile-command 'make requirements' pyproject.toml -o requirements.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --custom-compile-command 'make requirements' --constraint requirements.txt --extra dev \
	  pyproject.toml -o requirements-dev.txt

clean: ## Remove unfinished work of stopped stages (outs and cache stay)
	rm -rf .resume

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# uv installs the same hashed lock in a fraction of pip's time: the one on the path, else one in .venv. Where it cannot
# be had or fails (an index that only pip's own configuration names), pip does the work. Both compile to bytecode: with
# PYTHONDONTWRITEBYTECODE, as in many containers, each stage would otherwise compile its imports again.
PIP := $(BIN)/pip install --disable-pip-version-check -q
install = { command -v uv >/dev/null || $(PIP) -r requirements-uv.txt; } \
  && uv pip install -q --compile-bytecode --python $(BIN)/python $(1) || $(PIP) $(1)

$(BIN)/.installed: requirements.txt pyproject.toml | $(BIN)/python
	$(call install,-r requirements.txt)
	$(call install,--no-deps -e .)
	touch $@

$(BIN)/.installed-dev: requirements-dev.txt $(BIN)/.installed
	$(call install,-r requirements-dev.txt)
	touch $@
