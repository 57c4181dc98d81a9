# The README's two commands are `go run ./cmd/shunt demo` and `make test`.
export CGO_ENABLED = 0
LDFLAGS = -s -w
TOOL = go tool -modfile=tools/go.mod

.PHONY: build demo test check unit faults faults-core race lint generate fuzz bench docs needs clean

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

faults-core: ## the story with a fault at every failpoint, once each, and a sample of what a disk can do
	go test -count 1 -timeout 20m -parallel 8 -v ./internal/faults

faults: ## each point, each fault, first and later pass; 360 faults of the disk (about 40 minutes)
	go test -count 1 -timeout 120m -parallel 8 ./internal/faults -v -faults all

.PHONY: faults-every
faults-every: ## a fault of the disk at every call of the story, one after the other (many hours)
	go test -count 1 -timeout 0 -run WhateverTheDisk ./internal/faults -v -ops -1

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
screenshots: needs ## pictures of the pages in docs/screenshots
	mkdir -p docs/screenshots
	SHUNT_SHOTS=$(CURDIR)/docs/screenshots go test -count=1 -run TestScreenshots ./internal/web

clean:
	rm -rf bin shunt-demo
