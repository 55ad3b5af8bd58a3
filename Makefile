# make demo    simulated machines, agent, charts and board on this machine:  make demo ARGS="--seconds 30 --headless --json"
# make test    formatting, lint, types, walls, then every test:              make test ARGS="-k journal"
# make chaos   faults only: kills, power cuts, damage, troubles of disk and stores; prints what was sent, stored and lost
# make check   formatting, lint, types and walls only: the seconds between two thoughts
# make format  formats the code and mends what lint can mend
# make clean   removes .venv and everything else that git ignores below it
#
# Needs Python 3.11 or newer and nothing else; PYTHON names one. Set-up chatter goes to stderr.

PYTHON ?=
ARGS ?=
BIN := .venv/bin
LINT = for step in "ruff format --check --quiet --output-format concise ." "ruff check --quiet --output-format concise ." mypy; do echo "== $$step"; $(BIN)/$$step || status=1; done

.DEFAULT_GOAL := help
.PHONY: help demo test chaos check format clean

help:
	@sed -n '/^$$/q;s/^# \{0,1\}//p' Makefile

# A stamp for each set of extras: a second run starts at once, and a changed requirement installs again.
.venv/.ready-demo: pyproject.toml constraints.txt .ci/venv
	@.ci/venv demo $(PYTHON)
	@touch $@

.venv/.ready-dev: pyproject.toml constraints.txt .ci/venv
	@.ci/venv test,lint $(PYTHON)
	@touch $@ .venv/.ready-demo

demo: .venv/.ready-demo
	@$(BIN)/fieldlab demo $(ARGS)

# Every step runs, whatever the one before it said; the exit status is that of all of them.
check: .venv/.ready-dev
	@status=0; $(LINT); $(BIN)/pytest -q tests/test_walls.py || status=1; exit $$status

test: .venv/.ready-dev
	@status=0; $(LINT); lint=$$status; $(BIN)/pytest --durations=10 $(ARGS) || status=1; \
	[ $$lint = 0 ] || echo "Formatting, lint or types are not clean: see above the tests." >&2; exit $$status

chaos: .venv/.ready-dev
	@$(BIN)/pytest -s tests/chaos $(ARGS)

format: .venv/.ready-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
