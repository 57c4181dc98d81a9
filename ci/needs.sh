#!/usr/bin/env bash
# Installs what the tests need from Debian's packages, where it is missing.
set -eu
missing=()
command -v git >/dev/null || missing+=(git)
command -v git-flow >/dev/null || [ -e /usr/lib/git-core/git-flow ] || missing+=(git-flow)
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing+=(postgresql)
command -v strace >/dev/null || missing+=(strace)
command -v chromium >/dev/null || missing+=(chromium)
command -v ip >/dev/null || missing+=(iproute2)
[ ${#missing[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
	echo "tests need: ${missing[*]}; install them with your package manager (those that need them are skipped)" >&2
	exit 0
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
