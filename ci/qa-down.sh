#!/bin/sh
# Ends that server and its runner, and nothing else: all of their command lines
# have the directory of this environment in them.
set -eu
. ci/env.sh
dir=$QA_DIR/${SHUNT_ENVIRONMENT_ID:?}
signal=TERM
for try in 1 2 3 4 5 6 7 8 9; do
	left=
	for p in /proc/[0-9]*; do
		if tr '\0' ' ' 2>/dev/null <"$p/cmdline" | grep -qF -- "$dir/"; then
			left="$left ${p#/proc/}"
		fi
	done 2>/dev/null
	if [ -z "$left" ]; then
		rm -rf -- "$dir"
		exit 0
	fi
	kill -s $signal $left 2>/dev/null || true # it may have ended meanwhile
	sleep "0.$try"
	if [ "$try" = 7 ]; then
		signal=KILL
	fi
done
echo "still running:$left" >&2
exit 1
