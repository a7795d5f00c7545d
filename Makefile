# Everything there is to do here, from building to benchmarks. `make help` lists it.
#
# Each target does its own set-up: on a machine with cargo and a C compiler, `make test` and `make demo`
# need nothing else done first.

CARGO   ?= cargo
SCRIPTS := integration-tests/scripts
# The lock file is the build: nothing here may change it.
LOCKED  := --locked
# The programs that the integration tests drive.
TEST_BINARIES := target/test-binaries
# How many steps the soak takes, and where its random choices start (empty: a new seed, printed).
SOAK_STEPS ?= 5000
SOAK_SEED  ?=
# How long the builds with kills and evictions go on, in seconds.
SOAK_SECONDS ?= 600
# How long each fuzz target runs, in seconds.
FUZZ_SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help build wrapper demo test test-binaries unit check fmt clippy docs deny fuzz sanitize bench bless soak tools \
        check-windows check-windows-compiler check-macos check-aarch64 clippy-aarch64

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: wrapper ## release binaries, in target/release
	$(CARGO) build $(LOCKED) --release -p zccache-client --bin zccache-client
	$(CARGO) build $(LOCKED) --release -p zccache-service

# Started once per compile, and built to start soonest.
wrapper:
	$(SCRIPTS)/build-wrapper.sh release target/release

demo: ## build projects in C, C++ and Rust bare, cold and warm; compare the results; print tables
	$(SCRIPTS)/install-tools.sh demo
	$(MAKE) --no-print-directory build
	$(SCRIPTS)/demo.sh target/release
	$(SCRIPTS)/demo-rust.sh target/release

test: tools test-binaries ## every test there is: unit, golden, scenario, integration
	ZCCACHE_TEST_BINARIES=$(CURDIR)/$(TEST_BINARIES) $(SCRIPTS)/run-tests.sh

# The integration tests drive these, with the wrapper as it is shipped; the release one is there to be measured.
test-binaries: wrapper
	$(CARGO) build $(LOCKED) --workspace --bins
	$(SCRIPTS)/build-wrapper.sh dev $(TEST_BINARIES)
	ln -f target/debug/zccache-client target/debug/zccache-service $(TEST_BINARIES)

unit: ## the tests that need no other program
	$(CARGO) test $(LOCKED) --workspace --exclude zccache-integration-tests

check: fmt clippy test docs deny ## all that a change must pass

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings

docs:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc $(LOCKED) --workspace --no-deps --document-private-items

deny: ## licences, sources and known vulnerabilities of all dependencies
	$(SCRIPTS)/deny.sh

fuzz: ## frames, records and command lines made up by libFuzzer, FUZZ_SECONDS each
	$(SCRIPTS)/fuzz.sh $(FUZZ_SECONDS)

sanitize: ## the tests that go through unsafe code, under AddressSanitizer
	$(SCRIPTS)/sanitize.sh

bench: ## ratios against /bin/true, the bare compiler and other caches, within one run
	$(SCRIPTS)/install-tools.sh bench
	$(MAKE) --no-print-directory build
	$(CARGO) build $(LOCKED) --release -p zccache-service --example observe
	$(CARGO) build $(LOCKED) --release -p zccache-integration-tests --bin bench
	$(CARGO) build $(LOCKED) --release -p zccache-actors --example fill_cache
	$(SCRIPTS)/bench.sh target/release
	$(CARGO) bench $(LOCKED) -p zccache-service --bench parts

# What of the workspace is for Windows: the libraries and programs, and the tests that are not about Unix.
WINDOWS := -p zccache-proto -p zccache-actors -p zccache-client -p zccache-service --lib --bins

check-windows: ## type check and lints for Windows, and what can be run of it under Wine (Debian, root)
	$(SCRIPTS)/check-windows.sh clippy $(WINDOWS) --test transport --test windows --test windows_compiler
	$(SCRIPTS)/check-windows.sh build -p zccache-client -p zccache-service --bins
	$(SCRIPTS)/check-windows.sh test -p zccache-proto -p zccache-client --lib --test transport --test windows
	$(SCRIPTS)/check-windows.sh test -p zccache-actors --test windows

check-windows-compiler: ## compiles by a real clang for Windows, from miss to hit, under Wine (Debian, root, pip)
	$(SCRIPTS)/check-windows.sh build -p zccache-client -p zccache-service --bins
	$(SCRIPTS)/check-windows.sh compiler -p zccache-client --test windows_compiler

check-macos: ## type check and lints for macOS (Debian, root)
	$(SCRIPTS)/check-windows.sh macos -p zccache-proto -p zccache-actors -p zccache-client -p zccache-service --lib --bins

check-aarch64: clippy-aarch64 ## type check and lints for Linux on aarch64, and tests on an emulated machine (Debian, root)
	$(SCRIPTS)/check-aarch64.sh run

clippy-aarch64:
	$(SCRIPTS)/check-aarch64.sh clippy

bless: ## rewrite the golden files from what the code says now; read the diff
	BLESS=1 $(CARGO) test $(LOCKED) --workspace --exclude zccache-integration-tests
	git status --short

soak: tools test-binaries ## random projects for SOAK_STEPS steps, then builds, kills and evictions for SOAK_SECONDS
	ZCCACHE_TEST_BINARIES=$(CURDIR)/$(TEST_BINARIES) SOAK_STEPS=$(SOAK_STEPS) SOAK_SEED=$(SOAK_SEED) \
	  $(CARGO) test $(LOCKED) -p zccache-integration-tests --test generated -- --nocapture
	ZCCACHE_TEST_BINARIES=$(CURDIR)/$(TEST_BINARIES) SOAK_SECONDS=$(SOAK_SECONDS) SOAK_SEED=$(SOAK_SEED) \
	  $(CARGO) test $(LOCKED) -p zccache-integration-tests --test soak -- --nocapture

tools: ## install what the tests need, if it is missing (Debian, root)
	@$(SCRIPTS)/install-tools.sh test || echo 'tools: going on; the tests that need what is missing will fail'
