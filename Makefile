# Two commands do everything on a fresh machine: `make demo` shows the main job, `make test` proves it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The demo needs no test tools, which are most of what there is to fetch; where they are there already, nothing is.
DEMO_READY := $(if $(wildcard $(READY)),$(READY),$(VENV)/.demo-ready)
LOCKS := .ci/locks

# The demo: simulated seconds a real second; KEEP=1 leaves the cluster running until Ctrl-C; CLUSTER=real takes
# kube-apiserver and the others, built once, instead of the control plane in Python; SERVING=vllm has the pod really
# serve, with vLLM on CPU, installed once (5.5 GB).
SPEED ?= 30
KEEP ?=
CLUSTER ?= embedded
SERVING ?= simulated

# Processes of `make chaos`.
JOBS ?= 2

.PHONY: help demo test lint types layers unit embedded real test-serving serving-environment conformance charts image \
  chaos chaos-processes control-plane karpenter-suite helm lock format clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(DEMO_READY) ## show a Workspace become a served model on a GPU node and go away again
	@$(BIN)/python -m fakes.demo --cluster $(CLUSTER) --serving $(SERVING) --speed $(SPEED) $(if $(KEEP),--keep)

test: lint types layers unit embedded real test-serving ## everything that CI checks

lint: $(READY) ## ruff
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY) ## mypy --strict
	$(BIN)/mypy

layers: $(READY) ## the layers of the package, by import-linter
	$(BIN)/lint-imports

unit: $(READY) ## the tests that need nothing but Python, a thousand simulated histories among them
	$(BIN)/pytest -m "not embedded and not real and not serving" -n 2 --dist worksteal

chaos: $(READY) ## many simulated histories, SEEDS=10000 of them; the unit tests have the first thousand
	@$(BIN)/python -m tests.chaos --seeds $(or $(SEEDS),10000) --jobs $(JOBS)

# Tests wait far more than they work, so more of them run side by side than there are cores: each process has a control
# plane of its own, of which the real one takes more to run.
embedded: $(READY) ## the tests on the control plane in Python
	$(BIN)/pytest -m embedded -n 4 --dist loadfile

real: $(READY) control-plane karpenter-suite helm lua ## the tests on the real control plane
	$(BIN)/pytest -m real -n 3 --dist loadfile

test-serving: $(READY) serving-environment ## the tests of the serving image's program with the real vLLM, on CPU
	$(BIN)/pytest -m serving -n 2 --dist loadfile

serving-environment: $(READY) ## install vLLM for CPU once, 5.5 GB, then cached
	@$(BIN)/python -m fakes.serving

chaos-processes: $(READY) control-plane ## the controller's process under fire on both; SEED=7 plays one again, SEEDS=1-50 more
	$(BIN)/pytest tests/chaos/test_processes.py -n 2 -rP

conformance: $(READY) control-plane karpenter-suite ## of those, Karpenter's own tests alone
	$(BIN)/pytest tests/conformance

charts: $(READY) control-plane helm ## of those, the tests of the charts alone
	$(BIN)/pytest tests/charts

image: $(READY) ## what the controllers' Dockerfile does, done in a folder twice and compared; no container runtime needed
	@$(BIN)/python -m tests.image

control-plane: $(READY) ## build kube-apiserver and the others once, about five minutes, then cached
	@$(BIN)/python -m fakes.cluster --build-only

karpenter-suite: $(READY) ## build Karpenter's own tests once, about four minutes, then cached
	@$(BIN)/python -m tests.conformance

helm: $(READY) ## build Helm once, about two minutes, then cached
	@$(BIN)/python -m tests.charts

.PHONY: lua
lua: $(READY) ## build the interpreter of Argo CD's health checks once, seconds, then cached
	@$(BIN)/python -m tests.argocd

lock: $(READY) ## resolve the dependencies anew
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-annotate --no-header \
	  --upgrade pyproject.toml --output-file $(LOCKS)/runtime.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-annotate --no-header \
	  --upgrade --extra test pyproject.toml --output-file $(LOCKS)/test.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-annotate --no-header \
	  --extra demo --constraints $(LOCKS)/test.txt pyproject.toml --output-file $(LOCKS)/demo.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	  --no-annotate --no-header --upgrade --overrides fakes/serving/overrides.txt fakes/serving/requirements.in \
	  --output-file $(LOCKS)/serving.txt

format: $(READY) ## ruff format and its fixes
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## remove the virtual environment and the caches in the checkout
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info

# uv where the machine has it: seconds instead of a minute. Both check the hashes. $(1) is the lock.
define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  || { echo "Python 3.11 or newer is needed, this is $$($(PYTHON) --version). Set PYTHON=/path/to/python3.11." >&2; exit 1; }
@echo "setting up the virtual environment in $(VENV) ..."
@if command -v uv >/dev/null; then \
  uv venv --quiet --clear --python $(PYTHON) $(VENV); \
  uv pip install --quiet --python $(BIN)/python --require-hashes -r $(1); \
  uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .; \
else \
  $(PYTHON) -m venv --clear $(VENV); \
  $(BIN)/pip install --quiet --disable-pip-version-check --progress-bar on --require-hashes -r $(1); \
  $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
fi
@touch $@
endef

$(READY): $(LOCKS)/test.txt pyproject.toml
	$(call install,$(LOCKS)/test.txt)

$(VENV)/.demo-ready: $(LOCKS)/demo.txt pyproject.toml
	$(call install,$(LOCKS)/demo.txt)
