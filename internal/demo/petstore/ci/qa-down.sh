#!/bin/sh
# Ends that shop, and no other one. It may never have been up.
set -eu
. ci/demo.env
"$SHUNT" demo-shop stop --state "$DEMO/qa/${SHUNT_ENVIRONMENT_ID:?}"
rm -rf -- "$DEMO/qa/${SHUNT_ENVIRONMENT_ID:?}"
