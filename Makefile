# The two commands of the README are `make demo` and `make test`; `make help` lists the rest.
SHELL = /bin/sh
BIN = .venv/bin
# the checks look at the sources; `make test` looks at the installed wheel
SOURCES = PYTHONPATH=$(CURDIR)

.PHONY: help demo test check format lint types shellcheck unit docs cluster cluster-down bench lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

demo:  ## set up and run the main job on this machine
	@scripts/setup.sh run
	@scripts/install-wheel.sh
	@scripts/demo.sh

test:  ## set up and run every test, the real cluster too where it can run
	@scripts/setup.sh dev
	@scripts/install-wheel.sh
	@$(MAKE) --no-print-directory lint types shellcheck docs
	@scripts/test.sh

check: ## format, lint, types, shellcheck, unit tests: under a minute
	@scripts/setup.sh dev
	@[ -f .venv/.rvstate-wheel ] || scripts/install-wheel.sh
	@$(MAKE) --no-print-directory lint types shellcheck unit

format:  ## format the Python sources
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lint:
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types:
	@$(BIN)/mypy

shellcheck:
	@scripts/shell-scripts.sh | tr '\n' '\0' | xargs -0 $(BIN)/shellcheck

unit:
	@$(SOURCES) $(BIN)/python -m pytest -q -n 2 -m "not cluster and not slow" \
	    --ignore=tests/remote --ignore=tests/account --ignore=tests/operations tests

docs:  ## build the documentation, strictly
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir .venv/site

cluster:  ## bring up a mini-cluster to play with
	@tests/cluster/cluster up
	@echo "ssh config: $$(tests/cluster/cluster ssh-config)   (hosts rv-login, rv-far, rv-duo, rv-jump)"
	@echo "try it:     RVSTATE_HOME=/tmp/rvstate-try $(BIN)/rvstate init --host rv-login --site uva \\"
	@echo "                --ssh-config $$(tests/cluster/cluster ssh-config) -y"
	@echo "end it:     make cluster-down"

cluster-down:  ## end it
	@tests/cluster/cluster down --wipe

bench:  ## print the benchmark table; `make bench PEERS=no` leaves the peers out
	@scripts/setup.sh dev
	@scripts/install-wheel.sh
	@$(BIN)/python -m benchmarks --peers "$(or $(PEERS),yes)"

lock:  ## renew the locked requirements
	@scripts/setup.sh dev
	@scripts/lock.sh

clean:  ## remove what the targets made
	@rm -rf .venv dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
