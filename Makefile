# make help lists the targets. Each installs what it needs and says so (scripts/setup.sh); a second run installs nothing.

GO       ?= go
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 1m
COUNT    ?= 6
N        ?= 1000000
CONNECTIONS ?= 10000
KILLS    ?= 1000
SUITE    := $(GO) run ./scripts/suite

.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help build build-demo release-device deb image demo cluster cluster-stop check test test-unit test-long faults fuzz bench bench-import bench-connections cover clean setup-demo setup-cluster setup-test

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## build bin/latchkey and bin/latchkey-device, both static
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/latchkey ./cmd/latchkey-device

# What a device may run on. The version is put in by the linker and nothing else that git knows, so that an unpacked archive of the sources gives the
# same bytes as a clone.
DEVICES ?= linux/amd64 linux/arm64 linux/arm linux/riscv64 windows/amd64

release-device: ## build bin/device/latchkey-device_VERSION_OS_ARCH for every machine in DEVICES, stripped; the same sources give the same bytes
	@mkdir -p $(PACKAGES)/device
	@for device in $(DEVICES); do \
	  os=$${device%/*} arch=$${device#*/}; name=$$arch suffix=; [ $$arch != arm ] || name=armv7; [ $$os != windows ] || suffix=.exe; \
	  CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch GOARM=7 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' \
	    -o $(PACKAGES)/device/latchkey-device_$(VERSION)_$${os}_$$name$$suffix ./cmd/latchkey-device || exit; \
	done
	@cd $(PACKAGES)/device && sha256sum latchkey-device_$(VERSION)_* >SHA256SUMS

# GOARCH=arm64 and others work too: nothing here runs what was built for another machine.
ARCH     := $(or $(GOARCH),$(shell $(GO) env GOARCH))
PACKAGES ?= bin

deb: ## build bin/latchkey_VERSION_ARCH.deb; the same sources give the same bytes
	@mkdir -p bin/$(ARCH) $(PACKAGES)
	CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/$(ARCH)/ ./cmd/latchkey
	@packaging/deb.sh $(VERSION) $(ARCH) bin/$(ARCH)/latchkey $(PACKAGES)

PLATFORMS ?= $(ARCH)
EPOCH     := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

image: ## build bin/latchkey_VERSION.oci.tar, a container image; PLATFORMS="amd64 arm64" for several
	@mkdir -p $(PACKAGES)
	for arch in $(PLATFORMS); do CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/$$arch/ ./cmd/latchkey || exit; done
	packaging/third-party.sh >bin/third-party-licenses
	env -u GOOS -u GOARCH $(GO) run ./packaging/image -version $(VERSION) -created $(EPOCH) -licences bin/third-party-licenses \
	  -output $(PACKAGES)/latchkey_$(VERSION).oci.tar $(foreach arch,$(PLATFORMS),$(arch)=bin/$(arch)/latchkey)

# The simulated TPM is C code, so the demo alone is built with cgo.
build-demo: setup-demo
	CGO_ENABLED=1 $(GO) build -trimpath -o bin/ ./cmd/latchkey-demo

demo: build build-demo ## watch a device with a simulated TPM provision itself, and three attacks fail
	bin/latchkey-demo

# The simulated TPM again.
cluster: build setup-cluster ## run three nodes on PostgreSQL behind HAProxy, for you to use and to break; Ctrl-C ends it
	CGO_ENABLED=1 $(GO) build -trimpath -o bin/latchkey-cluster ./test/cluster/run
	@bin/latchkey-cluster start

cluster-stop: ## end what make cluster runs, from another terminal
	@if [ -x bin/latchkey-cluster ]; then bin/latchkey-cluster stop; else echo 'no cluster was ever started here'; fi

check: setup-demo ## under a minute: format, vet, staticcheck, import rules, unit tests
	@echo 'gofmt'; files=$$(git ls-files -co --exclude-standard -- '*.go' | xargs -r ls -d 2>/dev/null | xargs -r gofmt -l); \
	  [ -z "$$files" ] || { printf 'not formatted, run gofmt -w on:\n%s\n' "$$files"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(SUITE) -- -short -timeout 5m $$($(GO) list ./... | grep -Ev '/test/|/store/postgres$$') # what needs setup-test is left to make test

test: setup-test check ## everything is proven: check, all tests under the race detector, every fuzz target for some seconds
	$(SUITE) -noskip -fuzz 2s -- -race -count=1 -timeout 10m ./...

test-unit: ## as root: the Debian package under its own systemd unit, in a systemd that is booted in namespaces
	$(GO) test -tags systemd -count=1 -run 'LivesUnderItsUnit|UnitWithLess' ./test/packaging

test-long: setup-test check ## the same three times over in random order, and FUZZTIME (1m) for each fuzz target
	LATCHKEY_LONG=1 $(SUITE) -noskip -fuzz $(FUZZTIME) -- -race -count=3 -shuffle=on -timeout 60m ./...

# One package at a time, so that what one measures is not the load of another. What is drawn comes from seeds, which are printed.
faults: setup-test ## kill KILLS (1000) nodes and KILLS/5 database servers under load, then every other fault test in its long form
	LATCHKEY_LONG=1 KILLS=$(KILLS) $(SUITE) -noskip -show -- -count=1 -p 1 -timeout 12h ./test/faults ./test/cluster ./test/differential ./test/steps ./test/disk ./test/upgrade \
	  ./internal/registration ./internal/store/sqlite ./internal/store/postgres

fuzz: ## every fuzz target for FUZZTIME (1m)
	$(SUITE) -fuzz $(FUZZTIME)

bench: setup-demo ## benchmarks, COUNT (6) times, in the form that go tool benchstat reads
	@$(GO) test -run '^$$' -bench . -benchmem -count $(COUNT) \
	  $$(git grep -l --untracked '^func Benchmark' -- '*_test.go' | xargs -r -n 1 dirname | sort -u | sed 's|^|./|')

bench-import: ## import N (1000000) enrollments into a real service under load; an error if a target is missed
	$(GO) run ./test/load -n $(N)

bench-connections: ## memory of CONNECTIONS (10000) idle devices at the embedded hub of a real service; an error above the target
	$(GO) run ./test/connections -n $(CONNECTIONS)

cover: setup-test ## which lines the tests reach, in bin/cover.html
	@mkdir -p bin
	$(GO) test -coverpkg=./... -coverprofile=bin/cover.out ./...
	$(GO) tool cover -html=bin/cover.out -o bin/cover.html
	@$(GO) tool cover -func=bin/cover.out | tail -n 1

clean: ## remove what was built (not what was installed)
	rm -rf bin

setup-demo:
	@scripts/setup.sh demo

setup-cluster:
	@scripts/setup.sh cluster

setup-test:
	@scripts/setup.sh test
