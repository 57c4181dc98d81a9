#!/usr/bin/env bash
# Checks that are not tests: formatting, linter, generated files, and the size of
# the binary. Each says what to do.
set -eu
export CGO_ENABLED=0
cd "$(dirname "$0")/.."
fail=0
tool() { go tool -modfile=tools/go.mod "$@"; }

unformatted=$(gofmt -l cmd internal)
if [ -n "$unformatted" ]; then
	echo "not formatted (gofmt -w): $unformatted" >&2
	fail=1
fi

if ! tool golangci-lint run ./...; then
	echo "lint failed: make lint" >&2
	fail=1
fi

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
go build -trimpath -ldflags '-s -w' -o "$tmp/shunt" ./cmd/shunt
"$tmp/shunt" schema >"$tmp/schema.json"
"$tmp/shunt" schema --reference >"$tmp/pipeline.md"
cmp "$tmp/schema.json" docs/shunt.schema.json || { echo "docs/shunt.schema.json is stale: make generate" >&2; fail=1; }
cmp "$tmp/pipeline.md" docs/pipeline.md || { echo "docs/pipeline.md is stale: make generate" >&2; fail=1; }

mkdir "$tmp/web"
cp internal/web/*.templ internal/web/*_templ.go "$tmp/web/"
cp -r "$tmp/web" "$tmp/web.before"
tool templ generate -path "$tmp/web" >/dev/null 2>&1
for f in "$tmp"/web/*_templ.go; do
	cmp -s "$f" "$tmp/web.before/$(basename "$f")" || { echo "internal/web/$(basename "$f") is stale: make generate" >&2; fail=1; }
done

size=$(stat -c %s "$tmp/shunt")
echo "stripped binary: $((size / 1000000)) MB (at most 40)"
[ "$size" -le 40000000 ] || fail=1
if command -v file >/dev/null && ! file "$tmp/shunt" | grep -q 'statically linked'; then
	echo "the binary is not static" >&2
	fail=1
fi
exit $fail
