# `make help` lists what there is to do.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# GNU make 3.81, which macOS brings, looks commands up in the path that it was started with: recipes
# name the programs of the environment with their folder, and what those start finds it in PATH.
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

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

.PHONY: help install run ui tables study needs-git test lint bench clean lock

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

install: ## Make .venv, or bring it up to date; the commands below do it by themselves
	@bash install.sh

run: install ## Train and compare the default models on the miniature corpora
	@$(BIN)/python -m flows pipeline
	@$(BIN)/brewline results

ui: install ## Start the Prefect and MLflow UIs and the flows they can start; Ctrl-C stops all
	@exec $(BIN)/python -m flows.ui --prefect-port $(PREFECT_PORT) --mlflow-port $(MLFLOW_PORT)

# Every corpus with pictures x variant, with three seeds, and the full models on the other corpus:
# further experiments, and a row for each.
# Arguments: corpus, variant, states, recipe.
further = +experiments.$(1)-$(2)={task:retrieval,data:$(1),states:$(3),variant:$(2),recipe:$(4),init:none} \
  +tables.$(1).rows.$(2)=$(1)-$(2)
TABLES = recipes.mini.seeds=[0,1,2] recipes.mini-e2e.seeds=[0,1,2] \
  $(call further,mini-flickr8k,zero-shot-captions,none,none) \
  $(call further,mini-flickr8k,prompted-captions,none,mini) \
  $(call further,mini-flickr8k,prompted,none,mini) \
  $(call further,mini-lncoco,prompted-captions,none,mini) \
  $(call further,mini-lncoco,e2e,mini-lncoco,mini-e2e) \
  +experiments.mini-lncoco-full-of-flickr8k={task:retrieval,data:mini-lncoco,states:mini-lncoco,variant:full,recipe:none,init:mini-flickr8k-full} \
  +tables.mini-lncoco.rows.full-of-flickr8k=mini-lncoco-full-of-flickr8k

# DVC keeps an experiment as a commit, and git makes none for nobody.
NAMES := GIT_AUTHOR_NAME GIT_COMMITTER_NAME GIT_AUTHOR_EMAIL GIT_COMMITTER_EMAIL
IDENTITY = $(if $(shell git config user.email),,$(NAMES:%=%=brewline@localhost))

tables: install needs-git ## Train and compare every corpus with pictures x variant x seed, in a workspace apart
# `--force` would replace the last experiment of this name, and run every stage anew.
	@$(BIN)/dvc exp remove --quiet tables 2>/dev/null || true
	@$(IDENTITY) $(BIN)/dvc exp run --temp --name tables $(foreach override,$(TABLES),--set-param '$(override)')
# Into a folder that is there, DVC would put another one.
	@rm -rf reports/tables; $(BIN)/dvc get --quiet . reports --rev tables --out reports/tables
	@cat reports/tables/results.md
	@echo "the page: reports/tables/index.html"

# PART=models/captions-full: that one alone.
study: install ## Test the claims of the papers on larger corpora: hours, in parts; goes on where it was
	@$(BIN)/python -m study.parts $(PART)
	@$(BIN)/python -m study.page

needs-git:
	@git rev-parse --quiet --verify HEAD >/dev/null 2>&1 || { echo 'error: `make tables` keeps what it makes as a commit, and this folder has none: install git, then git init && git add . && git commit -m Brewline' >&2; exit 1; }

test: install ## Run the tests
	@$(BIN)/python -m pytest

lint: install ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/codespell

bench: install ## Compare our speed with what a user would write
	@for benchmark in benchmarks/*.py; do $(BIN)/python $$benchmark --json || exit; done

clean: ## Remove outputs, partial work and DVC's cache; never MLflow's store
	@for folder in data models reports; do [ ! -d $$folder ] || \
	  find $$folder -depth -mindepth 1 ! -name .gitkeep \( ! -type d -o -empty \) -delete || exit; done
	@rm -rf work .dvc/cache .dvc/tmp
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# Without gcs and azure, whose 25 packages few need.
LOCKED := test s3 speech-share faster-whisper ray siglip study browser lint build

lock: install ## Resolve the dependencies anew
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url $(LOCKED:%=--extra %) \
	  --custom-compile-command 'make lock' pyproject.toml -o requirements.lock
