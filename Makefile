# The book's commands. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 8000
# Tests run on all cores; a notebook's cells stay together on one.
NBVAL := $(BIN)/pytest --nbval --nbval-current-env -n auto --dist loadscope --no-loadscope-reorder notebooks

.DEFAULT_GOAL := help
.PHONY: help book test lab serve models notebooks lint format unit nbval build browser budget bench mutants lock fonts clean

# An environment keeps the Python that it was made with: another one asked for is not passed over.
ifeq ($(origin PYTHON),command line)
ifneq ($(wildcard $(BIN)/python),)
ifneq ($(shell $(PYTHON) -V 2>&1),$(shell $(BIN)/python -V 2>&1))
$(error PYTHON=$(PYTHON) is $(shell $(PYTHON) -V 2>&1), but the environment $(VENV) has $(shell $(BIN)/python -V 2>&1): name another one, VENV=.venv-new, say, or remove it by `make clean`)
endif
endif
endif

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed, and $(PYTHON) is {v[0]}.{v[1]}: set PYTHON=python3.11, say")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

book: build ## all of it from a fresh checkout: install, execute every page, build the HTML

# What needs a browser looks for it before the book is built, not after.
browser budget: NEEDS = --browser

build: $(STAMP) ## execute every page and build the HTML, strictly
	$(BIN)/python -m evidence_book build $(NEEDS)

test: $(STAMP) ## run every check: lint, unit tests, notebooks, strict build, browser
	@$(BIN)/python -m evidence_book stages --make "$(MAKE_COMMAND)" lint unit nbval build browser

lint: $(STAMP) ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## mend style where it can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

unit: $(STAMP) ## run the unit and property tests and compare pages with notebooks
	$(BIN)/pytest -n auto -p no:nbval -m "not browser"

nbval: $(STAMP) ## run every notebook and compare its stored outputs
	$(NBVAL)

browser: $(if $(BUILT),$(STAMP),build) ## open the built pages in Chromium and check them
	$(BIN)/pytest -m browser -n auto --dist loadfile

budget: build ## print what each page costs its reader, beside a stock Jupyter Book page
	$(BIN)/python -m evidence_book budget

models: $(STAMP) ## train what several pages use; stopped, it goes on where it was
	$(BIN)/python -m evidence_book models

notebooks: $(STAMP) ## write the paired notebooks from the pages
	$(BIN)/python -m evidence_book notebooks

lab: $(STAMP) ## open the notebooks in JupyterLab
	$(BIN)/python -m evidence_book lab

serve: $(STAMP) ## rebuild and serve on every save, at http://localhost:8000, or at PORT
	$(BIN)/python -m evidence_book serve --port $(PORT)

bench: $(STAMP) ## time the training loop against the usual one
	$(BIN)/python benchmarks/training_speed.py

mutants: $(STAMP) ## break the mathematics in many small ways and list what no test notices
	OMP_NUM_THREADS=1 $(BIN)/mutmut run
	$(BIN)/mutmut results

lock: $(STAMP) ## compile requirements.txt from pyproject.toml
	$(BIN)/python -m evidence_book lock $(LOCK)

fonts: $(STAMP) ## make the book's fonts again from their pinned packages
	$(BIN)/python -m evidence_book fonts

clean: ## remove what was built, and the environment
	rm -rf _build mutants $(VENV)
