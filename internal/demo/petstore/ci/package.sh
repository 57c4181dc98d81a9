#!/bin/sh
# Packs the shop, with the build's number and commit inside.
set -eu
mkdir -p dist/stage
cp -R shop/. dist/stage/
echo "${SHUNT_BUILD:-0} ${SHUNT_COMMIT:-uncommitted}" >dist/stage/VERSION
tar -C dist/stage -czf dist/petstore.tar.gz .
rm -rf dist/stage
