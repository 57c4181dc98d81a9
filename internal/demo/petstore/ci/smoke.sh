#!/bin/sh
# Does what was packed start and answer at all?
set -eu
. ci/demo.env
"$SHUNT" demo-shop check --archive "$SHUNT_ARTIFACT_APP" --list shop/smoke.txt
