#!/bin/sh
# Everything again, against the QA environment.
set -eu
. ci/demo.env
"$SHUNT" demo-shop check --url "$SHUNT_QA_URL" --list shop/tests.txt
"$SHUNT" demo-shop check --url "$SHUNT_QA_URL" --list shop/acceptance.txt
