# Every target sets up what it needs in .venv: nothing but Python >= 3.11 and make has to be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-long test-aws on-aws lint format bench soak conformance conformance-s3 clean

demo: $(VENV)/.installed
	$(BIN)/python examples/grid_search.py

# Three at a time: most tests wait for processes. A file's tests stay together, since they share servers.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 3 --dist loadfile

test-long: $(VENV)/.installed
	$(BIN)/python -m pytest -m long

# The conformance suites on a function of your AWS account that `wren setup` has made; this costs some cents.
test-aws: on-aws $(VENV)/.installed
	WREN_CLOUD=aws $(BIN)/wren test_function
	TEST_ON_AWS=1 WREN_CLOUD=aws $(BIN)/python -m pytest conformance_tests

on-aws:
	@test -n "$$WREN_BUCKET" || { echo "make test-aws: set WREN_BUCKET (and WREN_FUNCTION) to what \`wren setup\` has \
	made in your AWS account, and AWS_PROFILE or other credentials of boto3's" >&2; exit 2; }

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.peers
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# 20,000 calls in each mode under faults of all kinds; about five minutes on two cores.
soak: $(VENV)/.installed
	PYTHONPATH=tests $(BIN)/python -m soak

# Other projects' own tests on this one's surfaces: `make conformance`, or one of them with SUITE= and MODE=.
conformance: $(VENV)/.programs
	$(BIN)/python -m conformance_tests $(if $(SUITE),--suite $(SUITE)) $(if $(MODE),--mode $(MODE))

# The core on other S3 servers than the local cloud's: Ceph's (Debian's packages) and MiniStack.
conformance-s3: $(VENV)/.installed
	$(BIN)/python -m conformance_tests --other-s3

$(VENV)/.programs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev,programs]' --constraint constraints.txt
	touch $@

$(VENV)/.peers: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev,peers]' --constraint constraints.txt
	touch $@

# constraints.txt says which versions this was last tested with; it is made by `make constraints`.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): some minutes, the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	touch $@

.PHONY: constraints
constraints: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
		--no-emit-find-links --all-extras pyproject.toml --output-file constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
