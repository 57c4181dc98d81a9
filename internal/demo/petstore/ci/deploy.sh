#!/bin/sh
# Puts the artifact into production. It is never run twice for one deploy id; what
# it does is written down in deploys.log, one line for each.
set -eu
. ci/demo.env
production="$DEMO/production"
mkdir -p "$production/releases"

sum=$(sha256sum <"$SHUNT_ARTIFACT_APP")
if [ "${sum%% *}" != "$SHUNT_ARTIFACT_APP_SHA256" ]; then
	echo "these are not the bytes that were approved: ${sum%% *}" >&2
	exit 1
fi

# A server that was taken for dead may come back late: the fence tells.
fence=0
if [ -f "$production/fence" ]; then
	read -r fence <"$production/fence"
fi
if [ "$SHUNT_FENCE" -lt "$fence" ]; then
	echo "refused: a newer deployment (fence $fence) was here; this one has $SHUNT_FENCE" >&2
	exit 1
fi
echo "$SHUNT_FENCE" >"$production/fence.new"
mv -f "$production/fence.new" "$production/fence"
echo "$SHUNT_DEPLOY_ID $SHUNT_FENCE $SHUNT_BUILD $SHUNT_COMMIT ${sum%% *}" >>"$production/deploys.log"

release="releases/$SHUNT_BUILD.tar.gz"
cp "$SHUNT_ARTIFACT_APP" "$production/$release.new"
mv -f "$production/$release.new" "$production/$release"
ln -s "$release" "$production/current.new"
mv -f "$production/current.new" "$production/current"

"$SHUNT" demo-shop start --state "$production/shop" --archive "$production/current" --addr "$PRODUCTION" \
	--label "deploy=$SHUNT_DEPLOY_ID" --label "build=$SHUNT_BUILD" --label "commit=$SHUNT_COMMIT"
