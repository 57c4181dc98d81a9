#!/bin/sh
# Does what was packed do what was promised?
set -eu
. ci/demo.env
"$SHUNT" demo-shop check --archive "$SHUNT_ARTIFACT_APP" --list shop/acceptance.txt --junit build/test-results/acceptance.xml
