#!/bin/sh
# Installs the approved bytes. A deployment that comes late is refused by its fence.
set -eu
. ci/env.sh
mkdir -p "$INSTALL_DIR"
cp "$SHUNT_ARTIFACT_SHUNT" "$INSTALL_DIR/shunt.new"
sum=$(sha256sum <"$INSTALL_DIR/shunt.new")
if [ "${sum%% *}" != "$SHUNT_ARTIFACT_SHUNT_SHA256" ]; then
	echo "these are not the bytes that were approved: ${sum%% *}" >&2
	exit 1
fi
fence=0
if [ -f "$INSTALL_DIR/fence" ]; then
	read -r fence <"$INSTALL_DIR/fence"
fi
if [ "$SHUNT_FENCE" -lt "$fence" ]; then
	echo "refused: a newer deployment (fence $fence) was here; this one has $SHUNT_FENCE" >&2
	exit 1
fi
echo "$SHUNT_FENCE" >"$INSTALL_DIR/fence"
chmod 755 "$INSTALL_DIR/shunt.new"
mv -f "$INSTALL_DIR/shunt.new" "$INSTALL_DIR/shunt"
"$INSTALL_DIR/shunt" version
echo "$SHUNT_DEPLOY_ID" >"$INSTALL_DIR/deployed"
