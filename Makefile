# The README's two commands are `go run ./cmd/shunt demo` and `make test`.
export CGO_ENABLED = 0
export TMPDIR ?= $(shell ci/tmp.sh)
LDFLAGS = -s -w
TOOL = go tool -modfile=tools/go.mod

.PHONY: build demo test check unit faults faults-core faults-every faults-selfcheck soak recovery race lint generate fuzz bench docs needs clean

build: ## one static binary: bin/shunt
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/shunt ./cmd/shunt

demo: ## the whole hotfix story on this machine
	go run ./cmd/shunt demo

test: needs check unit faults-core ## all that CI runs

needs: ## what the tests need from Debian: Chromium and git-flow
	@./ci/needs.sh

check: ## vet, lint, generated files, size of the binary
	go vet ./...
	@./ci/check.sh

unit: ## all tests but the fault suite
	go test -timeout 20m $$(go list ./... | grep -v /internal/faults)

faults-core: ## two stories with a fault at some failpoints of every effect, histories, and a sample of what a disk can do
	go test -count 1 -timeout 20m -parallel 8 -v ./internal/faults ./internal/faults/disk

faults: ## every failpoint, every fault, 10,000 histories, 360 faults of the disk, and the fault rows that take long (SEED=7 SEEDS=3)
	go test -count 1 -timeout 180m -v ./internal/faults -faults all -seed $(or $(SEED),1) -seeds $(or $(SEEDS),1) -histories 10000
	go test -count 1 -timeout 120m -parallel 8 -v ./internal/faults/disk -faults all -seed $(or $(SEED),1)
	go test -count 1 -timeout 30m -v ./internal/e2e -run 'TestF[0-9]' -long
	go test -count 1 -timeout 30m -v ./internal/e2e -run TestACluster -cluster.builds 500

faults-every: ## a fault of the disk at every call of the story (many hours; PART=3/20 is a part of it)
	go test -count 1 -timeout 0 -run WhateverTheDisk ./internal/faults/disk -v -ops -1 -part $(or $(PART),1/1)

faults-selfcheck: ## plants bugs in the server, one at a time; the suite must catch each
	go run ./internal/faults/selfcheck

soak: ## builds flow for SOAK (10m), a fault every 5 s; memory, descriptors, goroutines stay flat (DATABASE=postgres)
	go run ./internal/faults/endure -database $(or $(DATABASE),sqlite) -for $(or $(SOAK),10m) soak

recovery: ## how long it takes after which death
	go run ./internal/faults/endure recovery

race: ## the packages with goroutines, under the race detector
	CGO_ENABLED=1 go test -race -timeout 30m ./internal/store ./internal/engine ./internal/runner ./internal/server ./internal/web

lint:
	$(TOOL) golangci-lint run ./...

generate: ## templ pages, schema and reference
	$(TOOL) templ generate -path internal/web
	go run ./cmd/shunt schema > docs/shunt.schema.json
	go run ./cmd/shunt schema --reference > docs/pipeline.md

fuzz: ## each fuzz target for FUZZTIME
	@./ci/fuzz.sh $(or $(FUZZTIME),20s)

bench: ## overhead beside the floor of this machine
	go run ./internal/bench

.PHONY: screenshots
screenshots: needs ## pictures of every page, in both palettes and three widths, in docs/screenshots
	mkdir -p docs/screenshots
	SHUNT_SHOTS=$(CURDIR)/docs/screenshots go test -count=1 -run TestScreenshots ./internal/web

clean:
	rm -rf bin shunt-demo
