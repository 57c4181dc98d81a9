package e2e

import "maps"

// shop is a small project: every script writes into the journal what it did.
// Over says which files differ.
func shop(over map[string]string) map[string]string {
	files := map[string]string{
		".shunt.yml": `version: 1
name: shop
jobs:
  build:
    steps: [{ run: ./ci/build.sh }]
    artifacts: { app: out/app.txt }
publish:
  app: { files: true }
environments:
  qa:
    ephemeral: true
    up: ./ci/up.sh
    down: ./ci/down.sh
    keep: 8h
  production:
    needs: [qa]
    deploy: ./ci/deploy.sh
    verify: ./ci/verify.sh
`,
		"ci/build.sh": `#!/bin/sh
set -eu
echo "$SHUNT_JOB $SHUNT_COMMIT" >>@DIR@/builds
mkdir -p out
{ echo "$SHUNT_COMMIT"; cat text; } >out/app.txt
`,
		"ci/up.sh": `#!/bin/sh
set -eu
echo "$SHUNT_ENVIRONMENT_ID" >>@DIR@/ups
`,
		"ci/down.sh": `#!/bin/sh
set -eu
echo "$SHUNT_ENVIRONMENT_ID" >>@DIR@/downs
`,
		"ci/deploy.sh": `#!/bin/sh
set -eu
echo "$SHUNT_DEPLOY_ID $SHUNT_BUILD $(sha256sum <"$SHUNT_ARTIFACT_APP")" >>@DIR@/deploys
echo "$SHUNT_DEPLOY_ID" >@DIR@/live
`,
		"ci/verify.sh": `#!/bin/sh
read -r live <@DIR@/live || exit 1
[ "$live" = "$SHUNT_DEPLOY_ID" ]
`,
		"text": "first\n",
	}
	maps.Copy(files, over)
	return files
}

// waits is a script's piece that says that it is under way and waits until it is
// allowed to go on.
func waits(name string) string {
	return "echo \"$SHUNT_JOB\" >>@DIR@/" + name + "-begun\nwhile [ ! -e @DIR@/" + name + "-go ]; do sleep 0.05; done\n"
}
