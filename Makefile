# Everyday commands. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# rustup's programs, for shells that have not heard of them yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

# librdkafka's C at -O0 for development: 58 instead of 171 CPU seconds. Only here and in .ci/run: what plain cargo builds is
# optimised. Whoever mixes both in one target folder exports the same, or cargo builds C libraries anew at each change.
export CFLAGS ?= -O0 -g0

# Extra arguments: make test ARGS='orders::' and so on.
ARGS ?=

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what is missing on this machine (also done by the targets that need it)
	@scripts/setup --tests

.PHONY: playground
playground: ## try StreamView: a broker, a Postgres, orders, the API and streaming SQL in one process; installs what is missing
	@scripts/setup
	@cargo run --locked --features embedded-engine -- playground $(ARGS)

.PHONY: test
test: ## run all tests against a real Kafka and Postgres
	@scripts/setup --tests
	@scripts/test $(ARGS)

.PHONY: test-embedded
test-embedded: ## run the tests of the embedded engine alone: promises, windows and kills on a real Kafka
	@scripts/setup --tests
	cargo test --locked -p streamview -p streamview-embedded --features streamview/embedded-engine --test embedded $(ARGS)

.PHONY: test-busy
test-busy: ## run the integration tests beside a hog of four busy threads: slow is no fault, standing still is
	@scripts/setup --tests
	@scripts/test-busy $(ARGS)

# How often `make soak` kills: an instance lives for a second or two.
KILLS ?= 500

.PHONY: soak
soak: ## kill -9 at KILLS random moments (500), of the commit path, of rebuilds and of the embedded engine's queries, then compare every row with the log; and between any two steps of the stream manager on Flink and on its own engine; an hour
	@scripts/setup --tests
	STREAMVIEW_TEST_KILLS=$(KILLS) scripts/test --test it -- fifty_kills thirty_kills a_kill_between_two --nocapture $(ARGS)
	STREAMVIEW_TEST_KILLS=$(KILLS) scripts/test -p streamview -p streamview-embedded --features streamview/embedded-engine \
		--test embedded -- a_kill --nocapture $(ARGS)

.PHONY: mutants
mutants: ## change the rules (crates/core) one place at a time and see whether their tests notice; an hour
	@scripts/setup
	@cargo mutants --version >/dev/null 2>&1 || cargo install --locked cargo-mutants@27.1.0
	PROPTEST_MAX_SHRINK_ITERS=0 \
		cargo mutants --package streamview-core --output target/mutants $(ARGS)

.PHONY: fuzz
fuzz: ## let a hostile client loose on a live API for two minutes (schemathesis)
	@scripts/setup --tests
	@scripts/fuzz-api $(ARGS)

.PHONY: up
up: ## start Kafka and Postgres in the background for work by hand
	@scripts/setup --tests
	@scripts/servers up $(ARGS)

.PHONY: down
down: ## stop what `make up` started; its data is gone
	@scripts/servers down

.PHONY: bench
bench: ## measure end to end and compare with the saved result
	@scripts/setup --tests
	unset CFLAGS; cargo build --release --locked && scripts/check-release
	unset CFLAGS; cargo bench --locked --bench end_to_end $(ARGS)

.PHONY: bench-embedded
bench-embedded: ## measure the embedded engine: from memory, over Kafka, beside a Flink that is warm, and with nothing to do
	@scripts/setup --tests
	unset CFLAGS; cargo bench --locked --profile bench-embedded --features embedded-engine --bench end_to_end -- \
		--phases embedded --results benches/results-embedded.json $(ARGS)

.PHONY: bench-peers
bench-peers: ## measure the best peer, Debezium's JDBC sink, beside us; needs Java and Maven. ARGS=--smoke: four minutes, with a bound
	@scripts/setup --tests
ifneq ($(filter --smoke,$(ARGS)),)
	# What the development build has made is used again; only the service is optimised for this.
	cargo bench --locked --profile dev --config profile.dev.package.streamview.opt-level=1 --bench end_to_end -- --phases peers \
		--results benches/results-peers.json --events 900000 --repeat 1 --peer-ratio 0.8
else
	unset CFLAGS; cargo build --release --locked && scripts/check-release
	unset CFLAGS; cargo bench --locked --bench end_to_end -- --phases peers \
		--results benches/results-peers.json --events 1500000 $(ARGS)
endif

.PHONY: bench-decode
bench-decode: ## measure decoding alone, JSON against Avro
	@scripts/setup
	unset CFLAGS; cargo bench --locked --bench decode

.PHONY: web
web: ## build the console (web/) into web/dist, which the binary holds; needs Node 20
	@cd web && npm ci --ignore-scripts --no-audit --no-fund && npx tsc --noEmit && node build.mjs

.PHONY: fmt
fmt: ## format the code
	cargo fmt --all

.PHONY: lint
lint: ## formatting and clippy, without the embedded engine; ci looks at that, too
	cargo fmt --all --check
	cargo clippy --all-targets --locked -- -D warnings

.PHONY: ci
ci: ## everything that must pass before a merge
	@.ci/run

.PHONY: clean-servers
clean-servers: ## stop the servers and forget the cached ones (Kafka's jars are fetched again)
	@scripts/servers down
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/streamview"
