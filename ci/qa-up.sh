#!/bin/sh
# Starts the built binary as a server of its own and says where it is. It gets a
# session and an environment of its own: it outlives this script.
set -eu
. ci/env.sh
dir=$QA_DIR/${SHUNT_ENVIRONMENT_ID:?}
mkdir -p "$dir"
cp "$SHUNT_ARTIFACT_SHUNT" "$dir/shunt"
chmod 755 "$dir/shunt"
: >"$dir/log" # before the server is there to write it
env -i PATH="$PATH" setsid "$dir/shunt" serve --data "$dir/data" --listen localhost:0 >"$dir/log" 2>&1 </dev/null &
try=0
while [ "$try" -lt 150 ]; do
	url=$(sed -n 's/^shunt .* serves \(http:[^ ]*\) from .*/\1/p' "$dir/log")
	if [ -n "$url" ]; then
		echo "url=$url" >>"$SHUNT_OUTPUT"
		exit 0
	fi
	try=$((try + 1))
	sleep 0.1
done
cat "$dir/log"
exit 1
