# `make demo` and `make test` do everything on a fresh Debian or Ubuntu machine, as root. `make help` lists the rest.
#
# Variables, on the command line or in the environment:
#   TARGET        Rust target; scripts/target.sh chooses musl where it can be had, else gnu (static as well)
#   BASE_IMAGE    base of the runner image; scripts/base-image.sh chooses, and makes one where no registry is in reach
#   CARGO_FLAGS   more flags for every cargo command (default: --locked)
#   CI_PROVIDER   whose runners `make demo` shows (default: github)
#   AGENT         for `make demo`, `make test-official` and `make bench`: GitHub's own agent, as a release archive of GitHub's (FILE), or the pinned
#                 release, which is fetched (official); without it the stand-in
#   ENGINE        own: `make bench` starts containers with the machine's Docker, whatever its storage driver
#   TEST_THREADS  tests at a time (default: 4)
#   TEST_ARGS     arguments for the tests, such as a name to filter by
#   DIST          where the results go (default: dist; the images are built from there)
#   OSCR_TEST_PATIENCE  multiplies the waits of tests (default: 1; docs/testing.md)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# The targets share Docker, cargo's lock and dist/: cargo itself uses every core.
.NOTPARALLEL:

# Given on the command line, it reaches the scripts all the same.
export AGENT

export PATH := $(PATH):/usr/sbin:/sbin:$(HOME)/.cargo/bin

DIST ?= dist
CARGO_FLAGS ?= --locked
TEST_ARGS ?=
# More than there are cores: these tests mostly wait for processes.
TEST_THREADS ?= 4
# Asked for anew by each recipe that uses it, so that one that runs after `setup` sees what setup changed.
ifeq ($(origin TARGET),undefined)
TARGET = $(shell scripts/target.sh)
endif
OUT = $(or $(CARGO_TARGET_DIR),target)/$(TARGET)
# A panic ends the program, so nobody looks up how to unwind: the index for that is 77 kB of dead weight.
LINK_ARGS := -C link-arg=-Wl,--no-eh-frame-hdr
# The binary may be this long. It is what every runner image carries; with glibc in it, it is a megabyte longer.
SIZE_LIMIT = $(if $(findstring -gnu,$(TARGET)),6000000,5000000)

# The archives of the stand-ins for the official agents, by the name of the provider.
STAND_INS := github azure-devops

# Parts of the names of container tests in which jobs have a Docker.
WITH_DOCKER := docker_without_root rootless_docker hosts_docker docker_that_does_not docker_dind with_docker an_engine_of_its_own \
    container_job a_job_in_a_container containers_of two_runners_on_one_engine the_pages_commands

SHELL_SCRIPTS = .ci/run $$(find scripts sim tests images demo benches ollama -name '*.sh' -type f 2>/dev/null)
DOCKERFILES = $(wildcard images/*/Dockerfile benches/*/*.Dockerfile)

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "  make %-13s %s\n", $$1, $$2 }'

.PHONY: setup
setup: ## install what is missing: build tools, Rust's target, Docker, Compose
	@scripts/setup.sh

.PHONY: setup-lint
setup-lint: ## install what only `make lint` needs, into .tools where that can be
	@scripts/setup.sh lint

.PHONY: build
build: ## the static binary (dist/oscr-entry), its man pages and completions (dist/share/), the simulated forge, the stand-in agents and the table of scenarios (dist/sim/)
	cargo rustc $(CARGO_FLAGS) --release --target $(TARGET) --package oscr --bin oscr-entry -- $(LINK_ARGS)
	cargo build $(CARGO_FLAGS) --target $(TARGET) --workspace --bins
	mkdir -p $(DIST)/sim
	install -m 0755 $(OUT)/release/oscr-entry $(DIST)/oscr-entry
	install -s -m 0755 $(addprefix $(OUT)/debug/,forge demo official runner-listener runner-worker) $(DIST)/sim/
	cd $(DIST)/sim && for kind in $(STAND_INS); do \
	    ./forge pack-agent --kind "$$kind" --bin-dir . --out "$$kind-sim.tar.gz" >"$$kind-sim.tar.gz.sha256"; done
	@# Of the day of what they were made from; outside of a clone, of today.
	rm -rf $(DIST)/share
	$(OUT)/debug/oscr-man $(DIST)/share "$$(git log -1 --format=%cs 2>/dev/null || date +%F)"
	@scripts/check-binary.sh $(DIST)/oscr-entry $(SIZE_LIMIT)

.PHONY: images
images: build ## the container images, from a base that needs no registry
	@scripts/images.sh

.PHONY: images-full
images-full: build ## the variant -full: compilers and Docker's command line (some minutes)
	@scripts/images.sh github-full

.PHONY: demo
demo: setup build ## three runners and a simulated forge on this machine, and what happens (CI_PROVIDER=github|azure-devops, AGENT=FILE|official)
	@scripts/demo.sh up $(or $(CI_PROVIDER),github)

.PHONY: demo-down
demo-down: ## remove all that the demo made
	@scripts/demo.sh down

.PHONY: test
test: setup images ## all tests, container tests included
	@scripts/setup.sh tests
	OSCR_CONTAINER_TESTS=1 RUST_TEST_THREADS=$(TEST_THREADS) scripts/test-summary.sh \
	    cargo test $(CARGO_FLAGS) --target $(TARGET) --workspace --no-fail-fast -- $(TEST_ARGS)

.PHONY: test-engines
test-engines: setup images ## the tests of jobs with Docker, on a second engine with overlay2 in namespaces of its own
	OSCR_CONTAINER_TESTS=1 scripts/test-engines.sh scripts/test-summary.sh \
	    cargo test $(CARGO_FLAGS) --target $(TARGET) --package oscr --test containers -- $(or $(TEST_ARGS),$(WITH_DOCKER))

.PHONY: test-podman
test-podman: setup images ## lives of a runner under Podman, as root and without (TEST_ARGS=root|rootless)
	@scripts/setup.sh podman
	@scripts/test-podman.sh $(TEST_ARGS)

.PHONY: test-official
test-official: setup build ## a table of scenarios with GitHub's own runner (AGENT=FILE|official), or its stand-in, in three postures
	@scripts/official.sh $(TEST_ARGS)

.PHONY: test-init
test-init: ## an init's promises, kept by INIT_UNDER_TEST=oscr|tini|dumb-init|catatonit|all
	cargo test $(CARGO_FLAGS) --target $(TARGET) --package oscr --test init -- $(TEST_ARGS)

.PHONY: stress
stress: ## twenty times 30 s of processes that fork, die and signal
	STRESS_SECONDS=30 cargo test $(CARGO_FLAGS) --target $(TARGET) --package oscr --test init -- fifty

.PHONY: soak-boards
soak-boards: setup images ## 500 jobs on two shared boards while containers are killed and jobs cancelled (some 4 minutes)
	OSCR_CONTAINER_TESTS=1 OSCR_BOARDS_JOBS=$${OSCR_BOARDS_JOBS:-500} cargo test $(CARGO_FLAGS) --target $(TARGET) --test containers -- board_under_fire

.PHONY: fuzz
fuzz: ## throw bytes at everything that reads what others write, a minute each (FUZZ_SECONDS=600 for more)
	FUZZ_SECONDS=$${FUZZ_SECONDS:-60} cargo test $(CARGO_FLAGS) --target $(TARGET) --package oscr --lib fuzz_ -- --show-output

.PHONY: soak
soak: setup images ## 2,000 jobs on 20 runners while the forge, the network and the containers fail (OSCR_SOAK_* in docs/testing.md)
	OSCR_CONTAINER_TESTS=1 OSCR_SOAK_CYCLES=$${OSCR_SOAK_CYCLES:-2000} OSCR_SOAK_RUNNERS=$${OSCR_SOAK_RUNNERS:-20} cargo test $(CARGO_FLAGS) --target $(TARGET) --test containers -- pool_under_fire

.PHONY: test-gnu
test-gnu: ## the tests that need no container, against the static glibc build
	@scripts/setup.sh tests
	$(MAKE) build TARGET=$(shell uname -m)-unknown-linux-gnu DIST=$(DIST)/gnu
	scripts/test-summary.sh cargo test $(CARGO_FLAGS) --target $(shell uname -m)-unknown-linux-gnu --workspace --no-fail-fast -- $(TEST_ARGS)

.PHONY: lint
lint: setup-lint lint-workflows ## formatting, clippy, shell scripts, Dockerfiles, compose files, the systemd unit, workflows
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --target $(TARGET) --workspace --all-targets -- --deny warnings
	shellcheck $(SHELL_SCRIPTS)
	if command -v hadolint >/dev/null; then hadolint $(DOCKERFILES); else echo "hadolint is not here: Dockerfiles are not checked"; fi
	scripts/check-compose.sh
	scripts/check-units.sh

.PHONY: lint-workflows
lint-workflows: setup-lint ## what .github has: its form, and what an attacker could make of it
	.tools/lint/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	.tools/lint/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	.tools/lint/bin/zizmor --offline --strict-collection --quiet .github

# Those that need no Docker. The herd fills the machine by itself.
BENCHES := init_bench lock wipe_bench

.PHONY: bench
bench bench-herd: export OSCR_ENTRY := $(abspath $(DIST))/oscr-entry
bench bench-herd: export OSCR_SIM_BIN_DIR := $(abspath $(DIST))/sim
# What is measured is the release binary; what measures may be built as the tests are. A start is measured with overlay2, which nearly every
# engine has: where the machine's has another storage driver, on a second one (ENGINE=own: on the machine's all the same).
bench: build ## compare with other inits, flock(1), rm -rf and a plain entrypoint (which needs Docker; AGENT=FILE|official), in less than ten minutes
	cargo bench $(CARGO_FLAGS) --profile dev --target $(TARGET) --package oscr $(addprefix --bench ,$(BENCHES))
	beside=; if docker version >/dev/null 2>&1; then \
	    OSCR_BENCH_IMAGE=$$(scripts/agent-image.sh); export OSCR_BENCH_IMAGE OSCR_TEST_IMAGE=$$OSCR_BENCH_IMAGE; \
	    case $(ENGINE)$$(docker info --format '{{.Driver}}') in own* | overlay*) ;; *) beside="scripts/test-engines.sh --outside" ;; esac; fi; \
	$$beside cargo bench $(CARGO_FLAGS) --profile dev --target $(TARGET) --package oscr --bench start_bench

.PHONY: bench-herd
bench-herd: build ## 100 runners that start together, each with its own token and with a shared one
	cargo bench $(CARGO_FLAGS) --profile dev --target $(TARGET) --package oscr --bench herd_bench

.PHONY: bench-docs
bench-docs: ## run both benches twice, and write the pages of performance from that
	rm -rf $(DIST)/bench
	for run in first second; do OSCR_BENCH_OUT=$(abspath $(DIST))/bench/$$run $(MAKE) bench bench-herd; done
	OSCR_BENCH_RUNS=$(abspath $(DIST))/bench/first:$(abspath $(DIST))/bench/second UPDATE_DOCS=1 \
	    cargo test $(CARGO_FLAGS) --target $(TARGET) --package oscr --test performance

.PHONY: clean
clean: ## remove what the build left (images stay)
	cargo clean
	rm -rf $(DIST)
