#!/bin/sh
# Builds the one static binary; the commit becomes part of its version.
set -eu
. ci/env.sh
go build -trimpath -ldflags='-s -w' -o dist/shunt ./cmd/shunt
./dist/shunt version
