# One environment for users and developers: torch is 5.5 GB of it, the development tools are 0.2 GB, and with a single
# stamp `make demo` and `make test` never install twice or disagree about versions.
VENV ?= .venv
PYTHON ?= python3

ifneq ($(words $(VENV)),1)
$(error VENV must be one path without spaces, got '$(VENV)')
endif

PY := $(VENV)/bin/python
STAMP := $(VENV)/.squad_lit
DEMO := runs/demo

# $(call require-311,INTERPRETER,WHAT TO DO)
require-311 = version=$$($(1) -c 'import platform; print(platform.python_version())' 2>/dev/null) \
	|| { echo "$(1): not found or not usable. $(2)" >&2; exit 1; }; \
	$(1) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "squad_lit needs Python 3.11 or newer; $(1) is $$version. $(2)" >&2; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help env demo test lint docs format type audit clean FORCE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "  Options: VENV=$(VENV) (where the environment is) and PYTHON=$(PYTHON) (what creates it, 3.11 or newer)."

env: $(STAMP) ## create the environment, or bring it up to date after a change of pyproject.toml

# The stamp holds the checkout that the editable install points to: the same VENV used from another one reinstalls.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
$(STAMP): FORCE
endif

# The stamp is begun before the install, so that a change of pyproject.toml meanwhile counts as newer, and put in place
# after it, so that an interrupted install leaves none.
$(STAMP): pyproject.toml
	@$(PY) -m pip --version >/dev/null 2>&1 || { \
		$(call require-311,$(PYTHON),Name another one: make env PYTHON=python3.11); \
		echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@$(call require-311,$(PY),Remove $(VENV) or name another folder: make env VENV=PATH)
	@rm -f $@ && printf '%s\n' '$(CURDIR)' > $@.part
	$(PY) -m pip install --disable-pip-version-check -e '.[dev]'
	@mv $@.part $@

demo: env ## train the default model and show where the result is
	$(PY) -m squad_lit.train hydra.run.dir=$(DEMO) model.steps=900 model.image_every=2  # a quarter of the usual length, and more for the pictures
	@test -s $(DEMO)/metrics.json || { echo "the run ended without $(DEMO)/metrics.json" >&2; exit 1; }
	@echo
	@echo "result    $(CURDIR)/$(DEMO)/metrics.json"
	@echo "pictures  $(CURDIR)/$(DEMO)/panels/"

test: lint type docs ## lint, types, documentation and all tests: what CI runs
	$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile  # a process has one thread; a file shares its models

lint: env ## ruff: rules and formatting; import-linter: layers
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(VENV)/bin/lint-imports

docs: env ## the documentation as a site; a warning or a dead link is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict  # not --quiet: that hides warnings from --strict
	@echo "documentation  $(CURDIR)/build/site/index.html"

format: env ## rewrite the code the way lint wants it
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

type: env ## mypy
	$(PY) -m mypy

# pip-audit ends with 0, too, where a mirror or no network answers nothing, so that its answer is counted here.
define AUDIT
import json, sys
try:
    looked_up = [p for p in json.load(open(sys.argv[1]))["dependencies"] if "vulns" in p]
except (OSError, ValueError, LookupError):
    looked_up = []
for p in looked_up:
    for v in p["vulns"]:
        print(f"warning: {p['name']} {p['version']}: {v['id']}, mended in {', '.join(v['fix_versions']) or 'no release'}")
print(f"{len(looked_up)} packages looked up" if looked_up else "no package could be looked up: is pypi.org reachable?")
endef
export AUDIT

audit: env ## installed packages with known weaknesses: a warning, never a failure
	@mkdir -p build && rm -f build/audit.json
	@$(PY) -m pip_audit --skip-editable --timeout 10 --progress-spinner off --format json --output build/audit.json \
		>/dev/null 2>&1 || true
	@$(PY) -c "$$AUDIT" build/audit.json

clean: ## remove build outputs and caches, never runs/ or data/
	rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +
