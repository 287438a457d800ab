# Everything that a person or CI does here starts with `make`. CONTRIBUTING.md explains the targets.
# The first Python that runs: a version manager may have a shim without its Python.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
	$$name -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
VENV := .venv
BIN := $(VENV)/bin
ROOMS := host protos stats access journal features registry training gateway rollout monitoring project turnout
CLIENT := clients/python

# cargo must run: rustup leaves a cargo even without a toolchain.
CARGO := $(shell cargo --version >/dev/null 2>&1 && command -v cargo)

.PHONY: run ingress crates advisories test unit walks attacks clients surroundings nightly soak year check protos lock fix bench

# The lock file has turnout[all] and the tools of developers; pip only adds this repository.
$(VENV)/.installed: requirements-dev.lock pyproject.toml $(CLIENT)/pyproject.toml
	@echo "Installing into $(VENV) (once, under a minute) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . -e $(CLIENT)
	@touch $@

# The native server is built where cargo is installed, on Linux. Without it grpcio serves.
ifeq ($(CARGO)-$(shell uname -s),$(CARGO)-$(if $(CARGO),Linux,none))
ingress: $(VENV)/.ingress
else
ingress:
	@echo "cargo is not installed, so the grpcio server is used (ingress/README.md says what the native server adds)."
endif

# crates.lock is Cargo.lock without the lines that name a package registry, which cargo knows by
# itself. So versions and checksums are fixed, and no address is committed.
CRATES := ingress benchmarks/loadgen
%/Cargo.lock: %/crates.lock
	@cargo generate-lockfile --quiet --manifest-path $*/Cargo.toml && \
	source=$$(grep -m 1 '^source = ' $@) && \
	awk -v source="$$source" '/^checksum = / {print source} {print}' $< > $@.new && mv $@.new $@

# Resolves the crates of both programs in Rust anew.
crates:
	@for crate in $(CRATES); do \
		cargo generate-lockfile --quiet --manifest-path $$crate/Cargo.toml && \
		grep -v '^source = ' $$crate/Cargo.lock > $$crate/crates.lock || exit 1; \
	done

$(VENV)/.ingress: $(VENV)/.installed ingress/Cargo.toml ingress/crates.lock $(shell find ingress/src -name '*.rs')
	@echo "Building the native server with cargo (once, about a minute) ..."
	@$(MAKE) --no-print-directory ingress/Cargo.lock && \
	cargo build --locked --release --quiet --manifest-path ingress/Cargo.toml --target-dir target/ingress && \
	folder=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))') && \
	cp target/ingress/release/libturnout_ingress.so $$folder/.turnout_ingress && \
	mv $$folder/.turnout_ingress $$folder/turnout_ingress.abi3.so && touch $@ || \
	echo "The native server could not be built, so the grpcio server is used."

run: $(VENV)/.installed ingress
	@$(BIN)/turnout demo $(if $(ONCE),--once)

test: ingress unit walks

# Nothing in it waits or is timed, so all cores may share it. `make check` runs tests/house. Images of
# containers often forbid bytecode, and then every process would compile all that it imports.
unit: $(VENV)/.installed
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m "not walk and not nightly" --ignore tests/house -n auto --dist worksteal

# Two files run side by side. With three or four, calls passed their deadlines on two cores.
walks: $(VENV)/.installed
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m "walk and not nightly" -n 2 --dist loadfile --no-loadscope-reorder

# Tests whose results are printed as one table at the end: the result, the test, and the reason.
TABLE := $(BIN)/python -m pytest -p tests.results.table

# Each input of the security findings through the ports of a built system, as a table.
attacks: $(VENV)/.installed
	@$(TABLE) tests/attacks

# The examples in Java, Go and Node, built and run against both servers, as a table. They fetch
# packages; a language whose tools are not installed is skipped with words.
clients: $(VENV)/.installed
	@$(TABLE) -m nightly $(addprefix tests/walks/clients/test_,go.py java.py node.py)

# A system in the surroundings that others have: a container's user, a dead proxy, no home, parts
# that fail. One table says which are green, and why one is not.
surroundings: $(VENV)/.installed
	@$(TABLE) -o faulthandler_timeout=0 tests/walks/calls/test_hostile_surroundings.py \
		tests/walks/calls/test_surroundings.py tests/walks/parts tests/gateway/test_surroundings_page.py \
		$(addprefix tests/gateway/supervision/test_,addresses.py handshake_refusals.py)

# What takes minutes: properties on thirty times the examples of `make unit`, drawn anew; whole
# contracts at full length; the soak.
nightly: $(VENV)/.installed
	@TURNOUT_EXAMPLES=10 $(BIN)/python -m pytest -m "hypothesis and not walk and not nightly"
	@$(BIN)/python -m pytest -m nightly -o faulthandler_timeout=0
	@$(MAKE) soak MINUTES=60

MINUTES ?= 10
soak: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.endurance.soak --minutes $(MINUTES)

# A virtual year of four models with planted events; docs/monitoring-year.md explains the table.
year: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.year

check: $(VENV)/.installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy $(ROOMS) $(CLIENT)/src/turnout_client
	@cd examples/telco && ../../$(BIN)/mypy .
	@$(BIN)/python -m pytest tests/house -m "not nightly"

# Also draws the table of folders, and lowers the numbers in tests/house/known.json.
fix: $(VENV)/.installed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@TURNOUT_LOWER_KNOWN=1 $(BIN)/python -m pytest tests/house -m "not walk and not nightly"

protos: $(VENV)/.installed
	@$(BIN)/python -m protos.generate

# requirements.lock is for hosts. The developers' lock file has the same versions of the same packages.
COMPILE := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-package turnout-client --no-header --extra all
lock:
	@$(COMPILE) pyproject.toml -o requirements.lock
	@$(COMPILE) --constraints requirements.lock --extra data --extra dev --extra foreign --extra jwt --extra load --extra plots --extra postgres pyproject.toml -o requirements-dev.lock

# Known vulnerabilities of what the lock files name. It asks a database, or says that none answers.
advisories: $(VENV)/.installed
	@$(BIN)/python -m tests.house.locks.advisories

# No other load should run on the machine; docs/performance.md says why.
bench: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.serving.bench; code=$$?; \
	$(BIN)/python -m benchmarks.micro.identity_cost && exit $$code
