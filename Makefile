# llmos. `make` alone prints this help.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VERSION  ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)
BIN      := bin
GOFLAGS  ?= -buildvcs=false
FUZZTIME ?= 60s
MINUTES  ?= 5
# The public traces that the measurements of the scheduler read; none is part of the repository.
OPENB    ?= ../shared/traces/openb
POLLUX   ?= ../shared/traces/pollux
PHILLY   ?= ../shared/traces/philly
SEEDS    ?= 10
# NVIDIA's header marks functions that go-nvml still binds as deprecated; the warnings are not ours.
export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations
export GOFLAGS

help: ## print this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/llmos and the example jobs' programs
	@mkdir -p $(BIN)
	go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $(BIN)/ ./cmd/llmos ./deploy/jobs/charlm

# programs are those that tests and measurements run as processes of their own.
programs: build
	@go build -o $(BIN)/ ./test/demo ./test/chaos ./test/bench/control

demo: programs ## watch three servers and three agents train a model while the leader is killed
	@$(BIN)/demo -bin $(BIN)

test: programs ## run every test, a short chaos run included
	go vet ./...
	LLMOS_TEST_BIN=$(CURDIR)/$(BIN) go test -count=1 -timeout 14m ./...

check: ## vet, staticcheck, formatting and the rules of the house
	go vet ./...
	go tool staticcheck ./...
	@test -z "$$(gofmt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$'))" || { echo "not formatted:"; gofmt -l .; exit 1; }
	go test ./test

race: programs ## run every test under the race detector
	LLMOS_TEST_BIN=$(CURDIR)/$(BIN) go test -race -count=1 -timeout 25m ./...

fuzz: ## run every fuzz target for FUZZTIME each
	@set -e; for file in $$(git grep -l '^func Fuzz' -- '*_test.go'); do \
	  for target in $$(grep -oE '^func Fuzz[A-Za-z0-9_]+' $$file | cut -c6-); do \
	    echo "== $$file $$target"; \
	    go test ./$$(dirname $$file) -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5s; \
	  done; done

chaos: programs ## break real processes for MINUTES and check every promise
	$(BIN)/chaos -bin $(BIN) -minutes $(MINUTES)

bench: ## run the Go benchmarks of every package
	go test -run '^$$' -bench . -benchmem ./...

bench-control: programs ## measure the control plane: submits, starts, jobs/s, failover, memory
	@$(BIN)/control -bin $(BIN)

bench-agent: programs ## measure what an agent costs its host with 200 idle tasks
	@go build -o $(BIN)/bench-agent ./test/bench/agent && $(BIN)/bench-agent -bin $(BIN)

bench-elastic: ## run Pollux's workloads under Tiresias, FIFO and llmos' elastic policy; POLLUX=DIR
	@go run ./test/bench/elastic -pollux $(POLLUX) $(if $(LOADS),-loads $(LOADS))

bench-openb: ## measure placement on openb's traces beside FGD (LISTS=a,b OPENB=DIR SEEDS=n DEPARTURES=n)
	@mkdir -p $(BIN) && go build -o $(BIN)/openb ./test/bench/openb && $(BIN)/openb -openb "$(OPENB)" -lists "$(LISTS)" -seeds "$(SEEDS)" $(if $(DEPARTURES),-departures "$(DEPARTURES)")

bench-scheduler: ## measure the scheduler's decisions per second on one core
	@mkdir -p $(BIN) && go build -o $(BIN)/bench-scheduler ./test/bench/scheduler && $(BIN)/bench-scheduler

bench-philly: build ## compare orders on the Philly trace, and run Kueue's generator (PHILLY=DIR)
	@go build -o $(BIN)/bench-philly ./test/bench/philly && $(BIN)/bench-philly -bin $(BIN) -philly "$(PHILLY)" $(if $(PRODUCT),-product $(PRODUCT))

frameworks: ## install PyTorch, TensorFlow, JAX and MPI for the example jobs (2.2 GB in ~/.cache)
	@deploy/jobs/frameworks.sh $(FRAMEWORKS)

e2e-frameworks: programs frameworks ## train the four example jobs on a local cluster, killing a rank of each
	LLMOS_TEST_BIN=$(CURDIR)/$(BIN) LLMOS_TEST_FRAMEWORKS=1 go test -count=1 -v -timeout 12m ./test/frameworks ./agent/sdk

proto: ## regenerate the Go code of proto/llmos/v1
	go run ./proto/gen
	gofmt -l proto

clean: ## remove what was built
	rm -rf $(BIN)

.PHONY: help build programs demo test check race fuzz chaos bench bench-control bench-agent bench-elastic bench-openb bench-scheduler bench-philly frameworks e2e-frameworks proto clean
