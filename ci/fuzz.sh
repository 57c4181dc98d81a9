#!/usr/bin/env bash
# Runs each fuzz target for the given time.
set -eu
cd "$(dirname "$0")/.."
for pkg in $(go list ./internal/...); do
	for target in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
		echo "== $pkg $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" "$pkg"
	done
done
