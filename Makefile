# `make` lists the targets. Everything they need and that is missing is installed by scripts/setup
# (a C compiler, the Postgres server programs) or named in its message (Rust).

.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := /bin/sh

# The committed answers in .sqlx are used unless somebody refreshes them: a build needs no database.
export SQLX_OFFLINE = true

# Where cargo builds, as cargo itself understands it.
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
TOOLS := $(abspath $(TARGET_DIR)/tools)
DATA_DIR = .claviger

# In CI the lock file is part of what is tested.
LOCKED := $(if $(CI),--locked)

CARGO_DENY_VERSION = 0.20.2

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo '  ARGS="..." is passed on by run, test, bench and torture, for example: make test ARGS="-p claviger-store"'

.PHONY: setup
setup:
	@scripts/setup

.PHONY: run
run: setup ## build and start a server here, with its own Postgres in .claviger
	cargo run --bin claviger -- --data-dir $(DATA_DIR) serve $(ARGS)

.PHONY: cluster
cluster: setup ## build and start three servers behind nginx here, on the data of make run (ARGS=PORT)
	scripts/cluster $(ARGS)

.PHONY: test
test: setup ## run all tests beside a throw-away Postgres (or the one in DATABASE_URL)
	scripts/with-postgres cargo test $(LOCKED) $(or $(ARGS),--workspace)

.PHONY: check
check: check-fmt check-deny check-clippy check-sqlx check-openapi ## formatting, lints, generated files, licences

.PHONY: check-fmt
check-fmt: setup
	cargo fmt --all --check

.PHONY: check-clippy
check-clippy: setup
	cargo clippy $(LOCKED) --workspace --all-targets -- -D warnings

# --workspace, because clippy has just checked all dependencies with exactly those features.
.PHONY: check-sqlx
check-sqlx: setup
	@rm -rf $(TARGET_DIR)/sqlx-check
	scripts/with-postgres scripts/sqlx-data $(TARGET_DIR)/sqlx-check $(LOCKED) --workspace
	@diff -r .sqlx $(TARGET_DIR)/sqlx-check || \
		{ echo "check: .sqlx does not match the queries and migrations; run: make sqlx" >&2; exit 1; }

.PHONY: check-openapi
check-openapi: setup
	@mkdir -p $(TARGET_DIR)
	cargo run --quiet $(LOCKED) --bin claviger -- openapi > $(TARGET_DIR)/openapi-check.json
	@diff -u openapi/openapi.json $(TARGET_DIR)/openapi-check.json || \
		{ echo "check: openapi/openapi.json does not match the routes; run: make openapi" >&2; exit 1; }

# cargo-deny reads the packages' sources, also of those that only other platforms build: hence the fetch.
.PHONY: check-deny
check-deny: setup
	@if ! PATH="$$PATH:$(TOOLS)/bin" command -v cargo-deny >/dev/null; then \
		echo "check: installing cargo-deny $(CARGO_DENY_VERSION) into $(TOOLS), once; this takes a few minutes"; \
		cargo install cargo-deny --version $(CARGO_DENY_VERSION) --locked --root $(TOOLS); \
	fi
	cargo fetch --quiet --locked
	PATH="$$PATH:$(TOOLS)/bin" cargo deny --offline --locked check --hide-inclusion-graph licenses bans sources

.PHONY: bench
bench: setup ## measure exchanges, logins and refreshes under load, optimised build
	cargo bench -p claviger --bench load $(ARGS)

.PHONY: openapi
openapi: setup ## write openapi/openapi.json from the routes
	@mkdir -p $(TARGET_DIR) openapi
	cargo run --quiet --bin claviger -- openapi > $(TARGET_DIR)/openapi-new.json
	mv $(TARGET_DIR)/openapi-new.json openapi/openapi.json

.PHONY: sqlx
sqlx: setup ## write .sqlx from the queries and migrations
	@rm -rf $(TARGET_DIR)/sqlx-new
	scripts/with-postgres scripts/sqlx-data $(TARGET_DIR)/sqlx-new
	rm -rf .sqlx
	mv $(TARGET_DIR)/sqlx-new .sqlx

.PHONY: demo
demo: ## play a key's whole life against a real server: create, exchange, verify, tamper, revoke
	scripts/demo

.PHONY: browser
browser: setup ## drive the login pages in a real headless Chromium
	scripts/browser-test

.PHONY: interop
interop: setup ## OAuth clients, JWT libraries, nginx and made-up requests against a real server
	scripts/interop $(ARGS)

.PHONY: torture
torture: setup ## kill, cut and hang up under load: is a refresh-token rotation ever lost? (ARGS=--short for a minute)
	cargo build $(LOCKED) --bin claviger --bin torture
	$(TARGET_DIR)/debug/torture $(ARGS)

.PHONY: torture-keys
torture-keys: setup ## rotate signing keys while servers are killed: does a verifier refuse a good token, or take a bad one? (ARGS=--short for a minute)
	cargo build $(LOCKED) --bin claviger --bin torture
	$(TARGET_DIR)/debug/torture --keys $(ARGS)

.PHONY: clean
clean: ## remove target and the data of `make run`
	scripts/remove-data-dir $(DATA_DIR)
	rm -rf target
