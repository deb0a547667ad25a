# Everything a contributor runs. `make help` lists it.

SWIFT ?= swift
# For this machine's AVX2 in Swift code too: make build ARCH="-Xcc -march=x86-64-v3"
ARCH ?=
IMPORTS = --explicit-target-dependency-import-check error
RELEASE = -c release $(ARCH) $(IMPORTS)
PACKAGES = libzmq3-dev libsnappy-dev libxxhash-dev libsimdjson-dev libopenblas-dev
FORMAT = $(SWIFT) format
STYLE = --configuration .ci/swift-format.json -r Sources Tests Package.swift
# What `make chaos` does: how many faults, on which dataset (synthetic traffic when empty), with which seed.
FAULTS ?= 300
EVENTS ?=
SEED ?=
DEMO ?= .build/demo
DEMO_IMPRESSIONS ?= 100000

.PHONY: help install build test test-python check format tidy demo chaos bench bench-all clean

help: ## lists these targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{ printf "  make %-9s %s\n", $$1, $$2 }'

install: ## installs the system libraries that are missing (apt-get, sudo when not root)
	@missing=""; for p in $(PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  echo "installing$$missing"; \
	  if [ "$$(id -u)" = 0 ]; then sudo=""; else sudo=sudo; fi; \
	  $$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; \
	fi

build: install ## builds the release binary, .build/release/guira
	$(SWIFT) build $(RELEASE) --product guira

test: install ## builds with the import check and runs every test
	$(SWIFT) build --build-tests $(ARCH) $(IMPORTS)
	$(SWIFT) test $(ARCH) $(IMPORTS)

test-python: build ## the Python client of docs/protocol.md against a real shard; makes .build/python with pyzmq and numpy
	@test -x .build/python/bin/python || python3 -m venv .build/python
	@.build/python/bin/python -c 'import zmq, numpy' 2>/dev/null || .build/python/bin/pip install -q pyzmq numpy || true
	@if .build/python/bin/python -c 'import zmq, numpy' 2>/dev/null; then \
	  .build/python/bin/python Tests/Python/test_client.py .build/release/guira; \
	else echo "*** SKIPPED: pyzmq and numpy are not there and cannot be installed; the Python client was NOT tested ***"; fi

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
	  $(SWIFT) test $(ARCH) $(IMPORTS) --skip-build --filter ChaosTests

bench: build ## lists the benchmarks of the release binary
	.build/release/guira bench --help

bench-all: build ## runs them all; JSON in .build/bench
	mkdir -p .build/bench
	for name in table pull push join; do .build/release/guira bench $$name --json > .build/bench/$$name.json || exit 1; done

clean: ## removes what was built and the demo's state
	$(SWIFT) package clean
	rm -rf $(DEMO)
