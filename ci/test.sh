#!/bin/sh
# The nouns and the rules: what must never be wrong, in seconds.
set -eu
. ci/env.sh
go vet -trimpath ./cmd/shunt ./internal/delivery ./internal/flow
go test -trimpath ./internal/delivery ./internal/flow
