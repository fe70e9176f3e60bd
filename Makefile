# Everything a person does with a checkout. Needs make, and Python 3.11 or newer with its venv module.

VENV := .venv
BIN := $(VENV)/bin
# Many tests wait for processes, so there are two more than cores, and at most 4. A file's tests stay together, for they share what they
# start; long files come first.
PARALLEL := --numprocesses $(shell n=$$(nproc); echo $$((n < 2 ? n + 2 : 4))) --dist loadfile --no-loadscope-reorder
# An old bytecode or user-site setting of the caller must not leak in.
export PYTHONNOUSERSITE := 1

.PHONY: help demo test run-tests test-services check pythons coverage docs screenshots site lint install clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.installed  ## Watch a simulated microscope being processed, start to 2D classes (some minutes)
	$(BIN)/icestream demo

test: $(VENV)/.installed-test  ## Lint, check types and layers, and run the tests that need nothing but this checkout
	@$(MAKE) --no-print-directory --jobs=2 lint run-tests

run-tests: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(PARALLEL) -m "not services"

test-services: $(VENV)/.installed-test  ## Install Debian packages (root or sudo) and run the tests that need them
	bash scripts/install-services.sh
	$(BIN)/python -m pytest -m services

check: test test-services site  ## Everything that the continuous integration runs

pythons:  ## Run some quick tests with every Python from 3.11 to 3.13 that this machine has
	bash scripts/try-pythons.sh

lint: $(VENV)/.installed-test  ## Check style, formatting, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

coverage: $(VENV)/.installed-test  ## Run the tests of `make test` and say which lines of icestream they do not reach
	rm -rf build/coverage
	$(BIN)/python -m pytest $(PARALLEL) -m "not services" --cov --cov-report=term

docs: $(VENV)/.installed-test  ## Write docs/reference and the dashboards anew from the declarations in the source
	$(BIN)/python scripts/reference.py docs/reference
	$(BIN)/python scripts/dashboards.py

screenshots: $(VENV)/.installed-test  ## Take the pictures of the pages anew, from a simulated session (Debian: chromium; some minutes)
	$(BIN)/python scripts/screenshots.py

site: $(VENV)/.installed-docs  ## Build the documentation as a website in build/site; a dead link fails
	$(BIN)/mkdocs build --strict

install: $(VENV)/.installed  ## Make .venv with icestream in it

clean:  ## Remove what these targets made
	rm -rf $(VENV) build dist demo .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/.made: scripts/make-venv.sh
	bash scripts/make-venv.sh $(VENV)
	@touch $@

# Until 0.1.0 the distribution was called icestream; where both are installed, the old one's list of steps would be read too.
$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	$(BIN)/python -m pip uninstall -qq --yes icestream
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[web]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@
