# `make help` lists what there is to do.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

VENV := .venv
READY := $(VENV)/.installed
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# Nothing here phones home. MLflow wants the literal word `true`.
export DO_NOT_TRACK := true
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
# Images of containers like to set it. Every stage would then compile all that it imports anew, which
# takes longer than most stages.
unexport PYTHONDONTWRITEBYTECODE
# uv trusts the certificates that the system trusts, as pip and browsers do.
export UV_SYSTEM_CERTS := true

# Taken ones are replaced by free ones.
PREFECT_PORT := 4200
MLFLOW_PORT := 5000

.PHONY: help run ui tables test lint bench clean lock

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

# The first Python 3.11 or 3.12 among those that the machine offers.
$(VENV)/bin/python:
	@for python in python3 python3.12 python3.11; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info[:2] not in [(3, 11), (3, 12)])' \
	    2>/dev/null; then exec $$python -m venv $(VENV); fi; \
	done; echo "error: Brewline needs Python 3.11 or 3.12" >&2; exit 1

$(READY): requirements.lock requirements-uv.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV): about 6 GB, once"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	  -r requirements-uv.lock
	@uv pip install --python $(VENV)/bin/python --require-hashes -r requirements.lock \
	  --build-constraints requirements.lock
	@uv pip install --python $(VENV)/bin/python --quiet --no-deps --no-build-isolation -e .
	@touch $@

run: $(READY) ## Train and compare the default models on the miniature corpora
	@python -m flows pipeline
	@brewline results

ui: $(READY) ## Start the Prefect and MLflow UIs and the flows they can start; Ctrl-C stops all
	@exec python -m flows.ui --prefect-port $(PREFECT_PORT) --mlflow-port $(MLFLOW_PORT)

# Every corpus x variant with three seeds: the lists of params.yaml, made longer.
TABLES = train.seeds=[0,1,2] \
  retrieval_corpora.mini-flickr8k=$(ALL_VARIANTS) \
  retrieval_corpora.mini-lncoco=$(ALL_VARIANTS) \
  +models.untrained.mini-flickr8k-zero-shot-captions={corpus:mini-flickr8k,variant:zero-shot-captions} \
  +models.text.mini-flickr8k-prompted={corpus:mini-flickr8k,variant:prompted} \
  +models.text.mini-flickr8k-prompted-captions={corpus:mini-flickr8k,variant:prompted-captions} \
  +models.text.mini-lncoco-prompted-captions={corpus:mini-lncoco,variant:prompted-captions} \
  +models.acoustic.mini-flickr8k-e2e={corpus:mini-flickr8k,variant:e2e}
ALL_VARIANTS := [zero-shot-captions,zero-shot,prompted-captions,prompted,e2e,full]

# DVC keeps an experiment as a commit, and git makes none for nobody.
NAMES := GIT_AUTHOR_NAME GIT_COMMITTER_NAME GIT_AUTHOR_EMAIL GIT_COMMITTER_EMAIL
IDENTITY = $(if $(shell git config user.email),,$(NAMES:%=%=brewline@localhost))

tables: $(READY) ## Train and compare every corpus with pictures x variant x seed, in a workspace apart
	@$(IDENTITY) dvc exp run --temp --force --name tables $(foreach override,$(TABLES),--set-param '$(override)')
	@for file in results.md results.csv index.html; do \
	  dvc get --quiet --force . reports/$$file --rev tables --out reports/tables/$$file; done
	@cat reports/tables/results.md
	@echo "the page: reports/tables/index.html"

test: $(READY) ## Run the tests
	@python -m pytest

lint: $(READY) ## Check style and types
	@ruff check .
	@ruff format --check .
	@mypy
	@codespell

bench: $(READY) ## Compare our speed with what a user would write
	@for benchmark in benchmarks/*.py; do python $$benchmark --json; done

clean: ## Remove outputs, partial work and DVC's cache; never MLflow's store
	@rm -rf data models reports work .dvc/cache .dvc/tmp
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

lock: $(READY) ## Resolve the dependencies anew
	@uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --all-extras \
	  --custom-compile-command 'make lock' pyproject.toml -o requirements.lock
