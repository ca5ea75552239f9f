# Each target runs one line of ordinary commands. README.md lists the same steps with pip.

PYTHON ?= python3
BIN := .venv/bin
# The tests start a hundred processes: each would compile all packages if the environment forbade it to keep the result.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: install demo test tests torture mutants lint locks bench docs clean

install: .venv/run

demo: .venv/demo
	$(BIN)/python -m bot demo

test: .venv/dev
	@$(MAKE) --no-print-directory --jobs 2 lint tests

# Three at once even on two cores, since some tests wait; one by one, so that the long ones do not end in one place.
tests: .venv/dev
	$(BIN)/python -m pytest -n 3 --dist load --maxschedchunk 1

torture: .venv/dev
	TORTURE=1 $(BIN)/python -m pytest -n 2 --timeout 7200 -rP -m faults

lint: .venv/dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

# Changes the program in small ways and counts which changes no test notices: MUTANTS="bot.domain.* bot.jobs.queue*"
# takes all of some files, SAMPLE=100 that many of each package. All of them take a night.
mutants: .venv/mutants
	$(BIN)/python -m tests.support.mutants --sample $(or $(SAMPLE),0) $(MUTANTS)

bench: .venv/dev
	$(BIN)/python -m benchmarks.table --rounds 2

# The documents as a site, in the folder site.
docs: .venv/docs
	$(BIN)/mkdocs build --strict

# Of the packages for the tests, most files are never imported: compiling each when it is saves a quarter of a minute.
PIP_dev := --no-compile

# Each stamp file shows when the environment was installed with exactly the versions of its lock file. The pip that
# comes with Python 3.11 takes twice as long as a newer one, so that one is installed first.
.venv/%: requirements/%.lock requirements/pip.lock
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=…")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: --requirement requirements/pip.lock
	$(BIN)/python -m pip install --quiet $(PIP_$*) --require-hashes --only-binary :all: --requirement $<
	touch $@

LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --quiet
locks:
	echo pip | $(subst pyproject.toml,-,$(LOCK)) --output-file requirements/pip.lock
	$(LOCK) --output-file requirements/run.lock
	$(LOCK) --extra charts --output-file requirements/charts.lock
	$(LOCK) --extra demo --output-file requirements/demo.lock
	$(LOCK) --extra docs --output-file requirements/docs.lock
	$(LOCK) --extra dev --output-file requirements/dev.lock
	$(LOCK) --extra mutants --output-file requirements/mutants.lock

clean:
	rm -rf .venv mutants site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
