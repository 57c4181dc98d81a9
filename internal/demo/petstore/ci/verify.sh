#!/bin/sh
# Is this very deployment live? It asks what runs. 0: yes, 1: no, other: unknown.
set -u
. ci/demo.env || exit 2
for try in 1 2 3 4 5; do
	live=$("$SHUNT" demo-shop label --state "$DEMO/production/shop" deploy) || exit 2
	echo "live is ${live:-nothing}, asked was $SHUNT_DEPLOY_ID"
	if [ "$live" = "$SHUNT_DEPLOY_ID" ]; then
		exit 0
	fi
	sleep 0.3 # it may be starting just now
done
exit 1
