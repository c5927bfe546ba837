# What one types here. `make run` and `make test` work on a bare Debian that has Rust.

# Outside the checkout, so that a fresh clone builds on what the last one left.
CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/datahub-gateway/target
export CARGO_TARGET_DIR

# How `make conf` runs the gateway; .ci/run names the binary that the tests have built.
GATEWAY ?= cargo run --quiet --locked --bin gateway --

# Where the fuzz targets are built, instrumented and apart from everything else, and what they have found
# interesting so far.
FUZZ_HOME = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/datahub-gateway/fuzz
# How long each target runs, in seconds.
FUZZ_SECONDS ?= 120
FUZZ_TARGETS ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
# As cargo-fuzz sets them, without a sanitizer: our code is forbid(unsafe_code).
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1

# Where .ci/tools puts the Python packages that look after infra/ and .github/.
PYTHON_HOME = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/datahub-gateway/python
PYTEST = $(PYTHON_HOME)/requirements/bin/python -m pytest -p no:cacheprovider -q

.PHONY: help run test check bench soak fuzz image cloud drill fmt lint docs audit conf
.PHONY: build-tools test-tools bench-tools fuzz-tools image-tools cloud-tools

help:
	@echo "make run     start the gateway on port 3000 with conf/ and a demo upstream"
	@echo "make test    every test; benches are compiled and run once"
	@echo "make check   format, lints, docs, dependency audit, the shipped conf files"
	@echo "make bench   every benchmark, the load comparison with nginx among them"
	@echo "make soak    the long runs of the tests that have one"
	@echo "make fuzz    every fuzz target for FUZZ_SECONDS (120) each"
	@echo "make image   the image of the Dockerfile: built without Docker, looked at, started, ended under load"
	@echo "make cloud   the templates of infra/ and the workflows: linters and contracts"
	@echo "make drill   every alarm of infra/, made to fire by a gateway that has the trouble"
	@echo "make fmt     format the code"

# Namespaces and cgroups want root.
AS_ROOT = $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=HOME,XDG_CACHE_HOME,GATEWAY_SOAK)

run: build-tools
	cargo run --locked --bin gateway -- --conf conf run --demo

test: build-tools test-tools cloud-tools
	cargo test --locked --all-targets
	cargo test --locked --doc
	$(PYTEST) tests/cloud

cloud: cloud-tools
	$(PYTEST) tests/cloud --deselect tests/cloud/test_drill.py --deselect tests/cloud/test_served.py

drill: build-tools test-tools cloud-tools
# With the tests' features, so that it is not compiled twice.
	cargo test --locked --no-run --test cloudwatch
	$(PYTEST) -s tests/cloud/test_drill.py

check: lint docs audit conf

lint: build-tools
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

docs: build-tools
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
# Tests build with the features that dev-dependencies add; this builds what ships.
	cargo check --locked --bin gateway

audit: build-tools
	cargo test --locked --test audit

# What a task of a fleet is given; nothing is connected to by a check.
FLEET = DATABASE_URL=postgres://gateway@db/gateway DATABASE_REPLICA_URL=postgres://gateway@replica/gateway \
	REDIS_URL=rediss://redis:6379 API_KEY_PEPPER=00000000000000000000000000000000 \
	JWT_SECRET=11111111111111111111111111111111 ADMIN_TOKEN_DEPLOY=22222222222222222222222222222222 \
	ADMIN_TOKEN_SUPPORT=33333333333333333333333333333333 ADMIN_TOKEN=44444444444444444444444444444444

# Every folder that ships must be one that the gateway would start with. `tls` names certificates
# that each operator brings along; tests/config.rs checks it with some.
conf: build-tools
	@for folder in conf conf/examples/*/ conf/environments/*/; do \
		[ "$$folder" != conf/examples/tls/ ] || continue; \
		echo "gateway --conf $$folder check"; \
		case $$folder in */fleet/ | */environments/*) variables="$(FLEET)" ;; *) variables= ;; esac; \
		env $$variables $(GATEWAY) --conf "$$folder" check || exit 1; \
	done

bench: build-tools test-tools bench-tools
	cargo bench --locked

soak: build-tools test-tools
	GATEWAY_SOAK=1 cargo test --locked --test it -- --test-threads=1 --nocapture soak
	GATEWAY_SOAK=1 cargo test --locked --test fleet -- --test-threads=1 --nocapture
	GATEWAY_SOAK=1 cargo test --locked --test cloudwatch -- --test-threads=1 --nocapture soak
# Ten minutes as one task on ECS: built by the user, and run by root, since nobody else may make its cgroup.
	cargo bench --locked --bench capacity --config \
		"target.'cfg(all())'.runner='$(AS_ROOT) env CAPACITY_SECONDS=600 CAPACITY_ENFORCE=1'" -- hold

# For the host by name, so that build scripts and macros are not instrumented. New inputs stay beside the
# target folder, an input that breaks a property in fuzz/artifacts: mend, and commit it as a seed.
fuzz: build-tools fuzz-tools
	cd fuzz && CARGO_TARGET_DIR=$(FUZZ_HOME) RUSTFLAGS="$(FUZZ_FLAGS)" \
		cargo build --release --locked --bins --target $$(rustc -vV | sed -n 's/^host: //p')
	@for target in $(FUZZ_TARGETS); do \
		echo "fuzzing $$target for $(FUZZ_SECONDS) s"; \
		mkdir -p $(FUZZ_HOME)/corpus/$$target fuzz/artifacts/$$target; \
		$(FUZZ_HOME)/$$(rustc -vV | sed -n 's/^host: //p')/release/$$target \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 \
			-artifact_prefix=fuzz/artifacts/$$target/ \
			$(FUZZ_HOME)/corpus/$$target fuzz/corpus/$$target || exit 1; \
	done

# The program that ships: built as the Dockerfile does, which stands in for that stage of it.
image: build-tools test-tools image-tools cloud-tools
	cargo build --release --locked --bin gateway
	$(AS_ROOT) env GATEWAY=$(CARGO_TARGET_DIR)/release/gateway $(PYTEST) -s tests/image

fmt:
	cargo fmt

build-tools:
	@.ci/tools build

test-tools:
	@.ci/tools test

bench-tools:
	@.ci/tools bench

fuzz-tools:
	@.ci/tools fuzz

image-tools:
	@.ci/tools image

cloud-tools:
	@.ci/tools cloud
