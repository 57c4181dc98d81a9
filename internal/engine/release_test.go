package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/shuntcd/shunt/internal/delivery"
)

func TestAPushReachesProductionOnTheMainLane(t *testing.T) {
	w := newWorld(t, full)
	w.queue = true
	w.close()
	w.open()
	w.add("")
	b := w.reach(1, delivery.BuildWaiting)
	w.want("the commit", b.Commit, w.remote("develop"))
	w.want("the QA", w.lines("envs"), "[up petstore-qa-1]")
	w.want("deploys", len(w.lines("deploys")), 0)
	w.mail("waiting", "build 1", w.web.URL)

	n := w.push("develop", "", "two")
	b = w.ship(n)
	sum := sha256.Sum256([]byte("two"))
	digest := hex.EncodeToString(sum[:])
	for _, tag := range []string{"build/2", "production/2"} {
		w.want(tag, w.remote("refs/tags/"+tag+"^{commit}"), b.Commit)
		w.want("type of "+tag, w.sh("git -C remote.git cat-file -t refs/tags/"+tag), "tag")
		message := w.sh("git -C remote.git cat-file -p refs/tags/" + tag)
		w.says(message, "Shunt-Build: 2", "Shunt-Commit: "+b.Commit, "Shunt-Artifact: app sha256:"+digest+" 3 out.txt", "Shunt-Policy: "+b.PolicyDigest, "Shunt-Server: srv")
	}
	w.says(w.sh("git -C remote.git cat-file -p refs/tags/production/2"), "Shunt-Promoted-By: bob", "Shunt-Reason: looks good")
	w.says(w.sh("git -C remote.git cat-file -p refs/tags/build/2"), "Shunt-Jobs: build")
	w.want("master", w.remote("master"), b.Commit)
	w.want("deploys", w.lines("deploys"), "[petstore-2-deploy-production-1 1 promote two]")
	w.want("QA", w.instance("petstore-qa-2").State, delivery.InstanceDown)
	p := w.project()
	w.want("production", fmt.Sprint(p.ProductionBuild, p.ProductionCommit, p.RunningBuild, p.RunningCommit, p.BranchTip), fmt.Sprint(2, b.Commit, 2, b.Commit, b.Commit))
	w.mail("promoted", "bob")
	w.audited(2, "bob", "promoted")
	w.audited(2, "shunt", "released")
	for _, e := range w.effects(2) {
		w.want(e.Key, e.State, delivery.EffectConfirmed)
	}
	// The older build was waiting for a decision about a production that moved.
	w.until("the older gate is stale", func() bool { return w.gate(1).Stale != "" })
	w.refused(w.decide(1, true, ""), delivery.KindRefused, "does not contain build 2")
	w.ok(w.decide(1, false, "build 2 went first"))
	w.reach(1, delivery.BuildRejected)
}

func (w *world) effects(number int64) []delivery.Effect {
	w.Helper()
	list, err := w.store.Effects(w.ctx, w.build(number).ID)
	w.ok(err)
	return list
}
