# What there is to do here; `make help` lists it. ARGS reaches the program:
# `make demo ARGS=--help`, `make bench ARGS=...`.

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz bench soak

ARGS ?=
# For each target of `make fuzz`. There is no unsafe code here for a sanitizer to watch, so the
# pinned compiler will do: coverage needs no other. What each begins with is in tests/fuzz/seeds, in
# the encoding by which libFuzzer's bytes become arguments.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS := chunked events websocket config forwarded cookie engine_io proxy_protocol request hand_over migrate
# How long `make soak` goes on. ARGS may name --seed and --connections.
SOAK_MINUTES ?= 10
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Build, then run the proxy over three small servers with a page to open
	@tests/install.sh build
	cargo build --release --locked
	$(TARGET_DIR)/release/steadfast demo $(ARGS)

test: ## All checks and all tests, as CI runs them
	@tests/install.sh test
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked
	cargo test --locked
	@if cargo deny --version >/dev/null 2>&1; then \
		cargo deny --locked check --hide-inclusion-graph bans licenses sources; \
	else \
		echo "cargo-deny is not installed: licences and sources of dependencies are not checked"; \
	fi

fuzz: ## Build, then feed nonsense to everything that parses, a minute each
	@tests/install.sh fuzz
	@for target in $(FUZZ_TARGETS); do \
		corpus=$(TARGET_DIR)/fuzz/corpus/$$target log=$(TARGET_DIR)/fuzz/$$target.log; \
		seeds=tests/fuzz/seeds/$$target; [ $$target = config ] && seeds=conf; [ $$target = migrate ] && seeds=tests/migrate/files; \
		mkdir -p $$corpus; \
		echo "fuzzing $$target"; \
		cargo fuzz build --fuzz-dir tests/fuzz --target-dir $(TARGET_DIR)/fuzz --sanitizer none $$target || exit 1; \
		cargo fuzz run --fuzz-dir tests/fuzz --target-dir $(TARGET_DIR)/fuzz --sanitizer none $$target $$corpus $$seeds -- \
			-max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 >$$log 2>&1 || { tail -n 60 $$log; exit 1; }; \
		grep -E 'INITED|DONE|stat::' $$log; \
	done

bench: ## Build, then measure Steadfast beside other proxies
	@tests/install.sh bench
	cargo bench --locked --bench proxies -- $(ARGS)

soak: ## Build, then ten minutes of everything at once: nothing may be lost
	@tests/install.sh soak
	cargo bench --locked --bench soak -- --minutes $(SOAK_MINUTES) $(ARGS)
