# Sourced by every script here. A job has a HOME of its own and a clean environment,
# so what it needs of its machine is said in ci/local.env, which is not part of the
# sources: PATH, GOCACHE, GOMODCACHE, QA_DIR, INSTALL_DIR.
PATH=$PATH:/usr/local/go/bin
CGO_ENABLED=0
QA_DIR=/var/tmp/shunt-qa       # of the servers to try a build with
INSTALL_DIR=/opt/shunt         # of production
if [ -f ci/local.env ]; then
	. ci/local.env
fi
export PATH CGO_ENABLED
