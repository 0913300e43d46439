# Everything a newcomer needs: `make run` and `make test` set up what is missing by themselves.

BIN := .venv/bin
READY := .venv/.ready

.PHONY: run test setup check bench bench-quick soak variables schemas dotenv requirements
.DEFAULT_GOAL := run

run: $(READY)
	@$(BIN)/python -m embedded

# TEST_PROCESSES=2 takes half of the time and all of the machine: each of them has servers of its own.
test: $(READY)
	@$(BIN)/pytest --numprocesses=$${TEST_PROCESSES:-0} --dist=loadfile

setup: $(READY)

check: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

# Everything that has a cost, beside what it is compared with (docs/benchmarks.md); bench-quick only shows that it runs.
bench: $(READY)
	@$(BIN)/python bench

bench-quick: $(READY)
	@$(BIN)/python bench --quick

# Breaks everything at random for SOAK_SECONDS (600), then counts (docs/guarantees.md). TEST_SEED repeats a run.
soak: $(READY)
	@SOAK_SECONDS=$${SOAK_SECONDS:-600} $(BIN)/pytest -s tests/test_faults.py -k row_32

$(READY): bin/setup pyproject.toml requirements.txt requirements/dev.txt
	@bin/setup

# Writes app.json, .env.example and docs/configuration.md from the settings classes.
variables: $(READY)
	@$(BIN)/python bin/variables

# Writes docs/schemas/ from the types of the Kafka values.
schemas: $(READY)
	@$(BIN)/python bin/schemas

# Writes .env from app.json, with secrets made up; the old one stays as .env.bak.
dotenv: $(READY)
	@$(BIN)/python bin/dotenv

# Pins every dependency again, after a change of requirements/*.in or to take newer releases.
requirements: $(READY)
	@bin/pin
