#!/bin/sh
# What an attacker would try, against the QA environment.
set -eu
. ci/demo.env
"$SHUNT" demo-shop check --url "$SHUNT_QA_URL" --list shop/security.txt
