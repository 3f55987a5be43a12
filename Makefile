# The two commands: `make demo` and `make test`. Everything else is for those who work on Wasmill itself.
# One cargo profile serves both, so that a fresh clone compiles once.

CARGO ?= cargo
WASMILL = $(CARGO) run --quiet --package wasmill --
PLUGINS = plugins/flights plugins/flights-mended plugins/earthquakes

.PHONY: help demo test check unit scenarios plugins author-path deny kill-run swap-run chaos ring idle-cost api-fuzz cost delivery-cost install

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: ## real records through real plugins into real tables, on this machine (REAL=1: Apache Kafka and Cassandra)
	@$(WASMILL) demo $(if $(REAL),--real)

test: check unit plugins author-path scenarios ## everything: format, lints, unit, golden, guests, plugins, the README, scenarios on real servers

check: deny ## format, lints, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings

deny:
	@if command -v cargo-deny >/dev/null; then cargo deny --log-level error check bans licenses sources; \
	elif [ "$$CI" = true ]; then echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; \
	else echo "SKIPPED licences and duplicates: cargo install --locked cargo-deny"; fi

unit: ## unit, property, golden and adapter tests
	$(CARGO) test --workspace --exclude wasmill-tests --quiet

plugins: ## the SDK's bindings; the example plugins: native tests, then their fixtures through the real component
	cd tests/bindings && $(CARGO) test --quiet
	@for plugin in $(PLUGINS); do \
	  echo "plugin $$plugin"; \
	  (cd $$plugin && $(CARGO) fmt --check && $(CARGO) test --quiet) && $(WASMILL) plugin test $$plugin || exit 1; \
	done

author-path: ## what README.md tells a plugin's author, word by word in an empty folder, down to the rows
	$(CARGO) build --quiet --package wasmill
	PATH="$(abspath $(or $(CARGO_TARGET_DIR),target))/debug:$$PATH" tests/author_path.sh

scenarios: ## the whole product on the development broker and on real Kafka, Cassandra and Postgres
	$(CARGO) build --quiet --package wasmill
	$(CARGO) test --package wasmill-tests --quiet

RECORDS ?= 1000000
KILLS ?= 10
kill-run: ## RECORDS flights into Postgres and Cassandra with KILLS times kill -9, compared with an independent computation
	$(CARGO) build --release --quiet --package wasmill
	$(CARGO) run --release --quiet --package wasmill-tests --bin kill_run -- --records $(RECORDS) --kills $(KILLS)

SWAP_RECORDS ?= 2000000
SWAPS ?= 100
swap-run: ## versions uploaded and swapped under a backlog of SWAP_RECORDS, SWAPS in a row during kill -9s, every row checked
	$(CARGO) build --release --quiet --package wasmill
	$(CARGO) run --release --quiet --package wasmill-tests --bin swap_run -- --records $(SWAP_RECORDS) --swaps $(SWAPS)

CHAOS_MINUTES = $(or $(MINUTES),8)
chaos: ## records through real Kafka, Postgres and Cassandra for MINUTES (8) of kills, faults and swaps, every sink checked (SEED=n repeats a run, REPORT=file)
	$(CARGO) build --quiet --package wasmill
	$(CARGO) run --quiet --package wasmill-tests --bin chaos_run -- --minutes $(CHAOS_MINUTES) \
	  $(if $(SEED),--seed $(SEED)) $(if $(REPORT),--report $(REPORT)) $(if $(LOGS),--logs $(LOGS))

idle-cost: ## 50 plugins with nothing to do: time until a restarted host is ready, memory each adds
	$(CARGO) build --release --quiet --package wasmill
	$(CARGO) run --release --quiet --package wasmill-tests --bin idle_cost

ring: ## three Kafka brokers and three Cassandra nodes, two hosts; a broker, a node and a host die (some 3 GB of memory)
	$(CARGO) test --package wasmill-tests --test wasmill -- --ignored --nocapture chaos::ring

FUZZ_MINUTES = $(or $(MINUTES),10)
api-fuzz: ## the API of a real host driven by schemathesis from its own document for MINUTES: no 500, no panic (pip install schemathesis)
	$(CARGO) build --quiet --package wasmill
	$(WASMILL) plugin build plugins/flights
	tests/api_fuzz.sh $(or $(CARGO_TARGET_DIR),target)/debug/wasmill $(FUZZ_MINUTES) plugins/flights/flights.wasm

cost: ## CPU a record of the whole host on real Kafka, into nothing and into Postgres
	$(CARGO) build --release --quiet --package wasmill
	$(WASMILL) plugin build plugins/flights
	python3 tests/cost.py $(or $(CARGO_TARGET_DIR),target)/release/wasmill plugins/flights/flights.wasm plugins/flights/data/flights.ndjson

delivery-cost: ## exactly-once against at-least-once, same rows and batches: instructions, system calls, CPU a row; fails past +10 % (valgrind, strace)
	$(CARGO) build --release --quiet --package wasmill
	tests=$$($(CARGO) test --release --quiet --package wasmill --lib --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1) && \
	python3 tests/delivery_cost.py $(or $(CARGO_TARGET_DIR),target)/release/wasmill $$tests

install: ## the command `wasmill` into cargo's bin folder
	$(CARGO) install --locked --path host
