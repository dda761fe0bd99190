# What can be done here:
#
#   make build      bin/imgcache-host and bin/plugins/
#   make run        everything at work, on loopback, until Ctrl-C (ONCE=1: once)
#   make test       all checks and tests, with the race detector
#   make test-all   the same at full length, and each fuzz target for FUZZTIME
#   make bench      imgcache-host beside nginx and Varnish (BENCH=short: briefly)
#   make bench-go   the benchmarks of single packages
#   make check      formatting, vet, staticcheck, buf, generated files, go.mod
#   make generate   the generated files anew
#   make clean      remove what was built

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
export PATH := $(PATH):/usr/sbin:/sbin

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 20s
POLICIES := lru lfu fifo gdsf sieve s3fifo
DRIVERS  := sqlite xattr centraldb

# The service and its plugins are built into BIN; with RACE set, under the
# race detector, which needs cgo. It does not watch wazero's compiler, which
# would then take twenty seconds for a module instead of one. That compiler uses
# no atomics and no sync.Map: an unwatched copy of their code, linked in place
# of the watched one, would make the detector see races that are none.
BIN  ?= bin
RACE ?=
WAZEVO    := github.com/tetratelabs/wazero/internal/engine/wazevo
UNWATCHED := $(foreach p,backend/... frontend ssa,-gcflags=$(WAZEVO)/$(p)=-race=false)
RACEFLAGS := $(if $(RACE),-race $(UNWATCHED))

# A plugin that others may write is not run, whatever the user's umask.
PRIVATE := umask 022

.PHONY: build
build:
	$(PRIVATE); CGO_ENABLED=$(if $(RACE),1,0) go build -trimpath -buildvcs=false $(RACEFLAGS) -ldflags '-X main.version=$(VERSION)' \
		-o $(BIN)/imgcache-host ./cmd/imgcache-host
	$(PRIVATE); for driver in $(DRIVERS); do \
		CGO_ENABLED=1 go build -trimpath -buildvcs=false $(RACEFLAGS) \
			-o $(BIN)/plugins/imgcache-driver-$$driver ./plugins/builtin/$$driver/imgcache-driver-$$driver; \
	done
	$(PRIVATE); for policy in $(POLICIES); do \
		GOOS=wasip1 GOARCH=wasm go build -trimpath -buildvcs=false -buildmode=c-shared -ldflags '-s -w' \
			-o $(BIN)/plugins/$$policy.wasm ./plugins/builtin/$$policy/wasm; \
	done

.PHONY: setup setup-test
setup:
	scripts/setup run
setup-test:
	scripts/setup test

.PHONY: run
run: setup
	$(MAKE) --no-print-directory build
	scripts/run

# The tools are pinned by a go.mod of their own, so that they do not choose
# the versions of what we ship.
TOOLS := .tools/built
$(TOOLS): tools/go.mod tools/go.sum
	mkdir -p .tools
	go build -modfile=tools/go.mod -o .tools/ tool
	touch $@

.PHONY: tools
tools: $(TOOLS)

WAT := $(wildcard testdata/wasm/*.wat)

.PHONY: generate
generate: $(TOOLS)
	cd pluginproto && ../.tools/buf generate
	for f in $(WAT); do wat2wasm -o "$${f%.wat}.wasm" "$$f"; done

.PHONY: check
check: $(TOOLS)
	unformatted=$$(.tools/gofumpt -l .); if [ -n "$$unformatted" ]; then echo "gofumpt -w these: $$unformatted"; exit 1; fi
	go vet ./...
	.tools/staticcheck ./...
	cd pluginproto && ../.tools/buf lint
	cd pluginproto && ../.tools/buf breaking --against v1.binpb
	$(MAKE) --no-print-directory generate
	git diff --exit-code -- pluginproto testdata/wasm
	go mod tidy -diff

# Tests that run the service find it through IMGCACHE_BIN.
.PHONY: test
test: setup-test check
	$(MAKE) --no-print-directory build BIN=bin/race RACE=1
	$(PRIVATE); IMGCACHE_BIN=$(CURDIR)/bin/race go test -race $(UNWATCHED) -timeout $(if $(IMGCACHE_TEST_ALL),3h,45m) ./...

# The tests that are too long for every day look at IMGCACHE_TEST_ALL.
.PHONY: test-all
test-all: export IMGCACHE_TEST_ALL := 1
test-all: test fuzz

.PHONY: fuzz
fuzz:
	for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep ^Fuzz || true); do \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

# Nothing else should load the machine meanwhile. BENCH is whole or short.
BENCH ?= whole
.PHONY: bench
bench:
	scripts/setup bench
	$(MAKE) --no-print-directory build
	go run ./bench -bin $(BIN) -form $(BENCH) $(BENCHFLAGS)

.PHONY: bench-go
bench-go:
	go test -run '^$$' -bench . -benchmem ./...

.PHONY: clean
clean:
	rm -rf bin run .tools
