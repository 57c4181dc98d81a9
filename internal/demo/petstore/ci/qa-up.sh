#!/bin/sh
# Starts a shop of its own for this build and says where it is.
set -eu
. ci/demo.env
"$SHUNT" demo-shop start --state "$DEMO/qa/${SHUNT_ENVIRONMENT_ID:?}" \
	--archive "$SHUNT_ARTIFACT_APP" --addr "localhost:$((9100 + SHUNT_BUILD % 900))" --any-port \
	--label "environment=$SHUNT_ENVIRONMENT_ID" --label "build=$SHUNT_BUILD" --label "commit=$SHUNT_COMMIT" >>"$SHUNT_OUTPUT"
