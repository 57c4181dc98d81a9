#!/bin/sh
# Is this very deployment live? 0: yes, 1: no.
set -u
. ci/env.sh
read -r live <"$INSTALL_DIR/deployed" || exit 1
[ "$live" = "$SHUNT_DEPLOY_ID" ] && "$INSTALL_DIR/shunt" version
