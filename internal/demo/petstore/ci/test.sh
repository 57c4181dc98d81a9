#!/bin/sh
# The unit tests, with a JUnit report.
set -eu
. ci/demo.env
"$SHUNT" demo-shop check --dir shop --list shop/tests.txt --junit build/test-results/shop.xml
