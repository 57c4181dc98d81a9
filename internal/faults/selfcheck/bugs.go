package main

// bug is a piece of text that makes the server wrong.
type bug struct {
	name string
	file string // in the repository
	old  string // is in the file exactly once
	bad  string // what replaces it
	by   test   // who must see it
}

// test is what is run: chosen narrowly, so that each takes seconds.
type test struct {
	pkg   string
	run   string   // as of `go test -run`
	flags []string // further ones
}

func (t test) String() string { return t.pkg + " " + t.run }

// story plays the faults' stories with one fault at a failpoint.
func story(fault string) test {
	return test{"internal/faults", "^TestTheStoryEndsTheSameWithAFaultAtEveryPoint$", []string{"-play", fault, "-database", "sqlite"}}
}

func storeTest(name string) test {
	return test{"internal/store", "^TestSQLite$/^" + name + "$", nil}
}

func engineTest(run string) test { return test{"internal/engine", "^" + run + "$", nil} }

// bugs lists what is planted.
func bugs() []bug {
	return []bug{
		// The store.
		{
			"a driver whose lease was taken over still writes", "internal/store/build.go",
			`set lease_until = $3 where id = $1 and lease_fence = $2 and lease_owner <> ''`,
			`set lease_until = $3 where id = $1 and lease_fence >= 0 * $2 and lease_owner <> ''`,
			test{"internal/faults", "^TestLeasesAreLinearizable$/^sqlite$", nil},
		},
		{
			"a fence is not compared when the lease is given back", "internal/store/build.go",
			"drive_after = $6\n\t\twhere id = $1 and lease_fence = $2", "drive_after = $6\n\t\twhere id = $1 and lease_fence >= 0 * $2",
			storeTest("a_build_is_numbered,_leased_and_fenced"),
		},
		{
			"a living lease is taken", "internal/store/build.go",
			`status in ('queued','running') and lease_until < $4 and drive_after <= $4`, `status in ('queued','running') and drive_after <= $4`,
			storeTest("two_owners_never_hold_one_lease"),
		},
		{
			"a decision does not compare", "internal/store/gate.go",
			`where id = $1 and version = $2 and state = 'open'`, `where id = $1 and version = $2`,
			storeTest("a_gate_is_decided_once"),
		},
		{
			"a push is acted on without a look at what is known", "internal/store/project.go",
			"if known != was {", "if known == \"never\" {",
			storeTest("servers_agree_on_duties,_runners_and_refs"),
		},
		{
			"an attempt is given to two runners", "internal/store/cluster.go",
			`where id = $1 and state = 'running' and runner = ''`, `where id = $1 and state = 'running'`,
			storeTest("servers_agree_on_duties,_runners_and_refs"),
		},
		{
			"two servers have one duty", "internal/store/cluster.go",
			`or duties.lease_until < $4`, `or $4 > 0`,
			storeTest("servers_agree_on_duties,_runners_and_refs"),
		},
		{
			"an environment takes two deployments at a time", "internal/store/migrations/00001_story.sql",
			"create unique index deployments_lock", "create index deployments_lock",
			storeTest("one_deployment_holds_an_environment"),
		},
		{
			"an intent is forgotten", "internal/store/effect.go",
			"\t\treturn known, false, nil\n\t}\n\tif !delivery", "\t\treturn known, true, nil\n\t}\n\tif !delivery",
			storeTest("an_effect_is_written_down_once"),
		},
		{
			"a number is given twice", "internal/store/project.go",
			`set next_build = next_build + 1 where name = $1 returning next_build - 1`, `set next_build = next_build where name = $1 returning next_build`,
			storeTest("numbers_are_never_given_twice"),
		},
		{
			"a newer push supersedes a hotfix", "internal/store/build.go",
			`ref = $2 and lane = 'main' and status = 'queued'`, `ref = $2 and status = 'queued'`,
			storeTest("a_queued_build_is_superseded,_a_hotfix_never"),
		},
		{
			"the audit chain is not checked", "internal/store/record.go",
			"if a.Hash != a.chain(before) || a.Seq", "if a.Hash == before && before != \"\" || a.Seq",
			storeTest("the_audit_chain_shows_a_changed_row"),
		},
		{
			"others are told before the commit", "internal/store/store.go",
			"\tif err := sqlTx.Commit(); err != nil {", "\tfor _, done := range tx.after {\n\t\tdone()\n\t}\n\ttx.after = nil\n\tif err := sqlTx.Commit(); err != nil {",
			test{"internal/store", "^TestNobodyIsToldOfWhatIsNotCommitted$", nil},
		},
		{
			"a commit that fails is acknowledged", "internal/store/store.go",
			"return s.judge(reword(\"nobody knows whether this was saved\", \"Look again before you repeat it.\", fmt.Errorf(\"commit: %w\", err)))", "_ = err",
			test{"internal/store", "^TestNobodyIsToldOfWhatIsNotCommitted$", nil},
		},
		{
			"an error of the disk is ignored", "internal/store/dialect.go",
			"s.cfg.Fatal(fmt.Errorf(\"the database's disk failed: %w\", err))", "_ = s.cfg.Fatal",
			test{"internal/store", "^TestASpoiledDiskEndsTheProcess$", nil},
		},
		{
			"a newer schema is opened", "internal/store/store.go",
			"if current > target {", "if current > target+1_000_000 {",
			test{"internal/store", "^TestANewerSchemaIsRefused$", nil},
		},

		// Artifacts.
		{
			"an artifact's bytes are not synced", "internal/artifact/store.go",
			"temp.Chmod(0o440), temp.Sync(), temp.Close()", "temp.Chmod(0o440), temp.Close()",
			test{"internal/artifact", "^TestPutIsDurable$", nil},
		},
		{
			"an artifact's name is not synced", "internal/artifact/store.go",
			"if err := syncDir(dir); err != nil {\n\t\treturn errors.Join(err, os.Remove(blob))\n\t}", "",
			test{"internal/artifact", "^TestPutIsDurable$", nil},
		},
		{
			"an artifact is not compared before it is deployed", "internal/engine/deploy.go",
			"for _, a := range artifacts {\n\t\tif err := p.Blobs.Verify", "for _, a := range artifacts[:0] {\n\t\tif err := p.Blobs.Verify",
			engineTest("TestWhatWasApprovedIsWhatIsDeployed"),
		},

		// Git.
		{
			"a branch is forced", "internal/gitrepo/push.go",
			"case !forward:", "case !forward && u.Old == \"\":",
			test{"internal/gitrepo", "^TestPushNeverForces$", nil},
		},
		{
			"a push overwrites what is there", "internal/gitrepo/push.go",
			`"--force-with-lease="+u.Ref+":"+u.Old`, `"--force"`,
			test{"internal/gitrepo", "^TestT16TagAtAnotherCommit$", nil},
		},
		{
			"a push whose answer was lost counts as refused", "internal/gitrepo/push.go",
			"if !rejected && !notStarted && !noAtomic {", "if !rejected && !notStarted && !noAtomic && !exited {",
			test{"internal/gitrepo", "^TestPush(RemoteKilled|CutShortIsUnknown|WhoseAnswerIsLostIsUnknown)$", nil},
		},
		{
			"a tag that was moved is not noticed", "internal/engine/intake.go",
			"return store.Push{}, e.tagMoved(ctx, p, ref, was, is)", "return store.Push{}, e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error { return tx.MoveRef(ctx, p.Name, ref, was, is) })",
			engineTest("TestATagThatWasMovedOrDeletedIsAnIncident"),
		},
		{
			"production's branch moved by hand is not noticed", "internal/engine/intake.go",
			"err != nil || now.BranchTip == is {", "err != nil || is != \"\" {",
			engineTest("TestProductionBranchMovedByHandBeforeTheDecision"),
		},

		// Effects and deployments.
		{
			"an effect is confirmed before its call", "internal/engine/effect.go",
			"\t\tanswer, err := e.call(ctx)\n", "\t\tif err := set(\"\", \"\", delivery.EffectConfirmed); err != nil {\n\t\t\treturn \"\", err\n\t\t}\n\t\tif err := failpoint.Hit(e.kind, failpoint.BeforeRecord); err != nil {\n\t\t\treturn \"\", err\n\t\t}\n\t\tanswer, err := e.call(ctx)\n\t\tif err == nil {\n\t\t\treturn answer, nil\n\t\t}\n",
			story("tag.before_record=kill@1"),
		},
		{
			"a lost answer is repeated blindly", "internal/engine/effect.go",
			"if !fresh || try > 0 {", "if !fresh {",
			engineTest("TestALostAnswerIsLookedUpAndNotRepeated"),
		},
		{
			"a lost deployment is started again", "internal/engine/deploy.go",
			"r = p.lookUp(ctx, env, d, vars, res.Reason)", "r = p.endDeployment(result{state: delivery.NodePending}, d, delivery.DeploymentFailed, \"\")",
			engineTest("TestALostDeploymentIsLookedUpAndNeverRepeated"),
		},
		{
			"a deployment has another id after a crash", "internal/engine/deploy.go",
			"\tid := attemptID(p.build, p.node.Name, p.node.Attempt)\n\td, err := p.Store.Deployment", "\tid := attemptID(p.build, p.node.Name, p.node.Attempt) + \"-\" + strconv.FormatInt(p.build.LeaseFence, 10)\n\td, err := p.Store.Deployment",
			engineTest("TestAServerThatDiesAnywhereEndsTheSame"),
		},
		{
			"a main build does not let a hotfix go first", "internal/store/environment.go",
			"order by case b.lane when 'hotfix' then 0 else 1 end, b.number", "order by b.number",
			engineTest("TestOneDeploymentAtATimeAndHotfixesFirst"),
		},
		{
			"the approval is not compared before the deployment", "internal/engine/deploy.go",
			"len(changed) > 0 {\n\t\treturn p.void", "len(changed) > 99 {\n\t\treturn p.void",
			engineTest("TestAnApprovalIsVoidOnceProductionMoved"),
		},
		{
			"the approval is not compared with the click", "internal/engine/gate.go",
			"d.Promote && len(changed) > 0 {", "d.Promote && len(changed) > 99 {",
			engineTest("TestAClickOnWhatHasChanged"),
		},
		{
			"production is tagged before the deployment", "internal/pipeline/graph.go",
			`[]string{"deploy/" + e.Name})`, `needs)`,
			engineTest("TestAFailedDeployment"),
		},
		{
			"an environment is destroyed only after a success", "internal/flow/graph.go",
			"\t\t\tready = final\n", "\t\t\tif ready = final; n.Position >= 0 {\n\t\t\t\tready = satisfied\n\t\t\t}\n",
			engineTest("TestARejectionDestroysTheQAAndThatIsAll"),
		},
		{
			"a destruction that failed is not tried again", "internal/store/environment.go",
			"or (state = 'destroying' and next_try <= $1 and next_try > 0)", "",
			engineTest("TestDestroyingIsTriedUntilItIsGone"),
		},
		{
			"a hold is ignored", "internal/flow/promote.go",
			`case f.Hold != "" && f.Lane == delivery.LaneMain:`, `case f.Hold == "never":`,
			engineTest("TestAHoldKeepsTheMainLaneFromProduction"),
		},
		{
			"a freeze is ignored", "internal/flow/promote.go",
			`case Frozen(f.Freezes, f.Now) != nil &&`, `case Frozen(nil, f.Now) != nil &&`,
			engineTest("TestAFreezeKeepsTheMainLaneFromProduction"),
		},
		{
			"a freeze is looked at only when somebody decides", "internal/engine/deploy.go",
			"\tif !env.Production {\n\t\tfacts.Freezes", "\tif true {\n\t\tfacts.Freezes",
			engineTest("TestAFreezeTakesAPromotionBackThatHasNotBegun"),
		},
		{
			"a restored server does not wait", "internal/engine/engine.go",
			"return e.Paused != nil && e.Paused() }", "return false }",
			engineTest("TestAnOlderDatabaseLearnsFromGitAndRepeatsNothing"),
		},
		{
			"a mail is noted as sent before it is", "internal/server/loops.go",
			"\tif failpoint.Hit(\"mail\", failpoint.BeforeCall) != nil {", "\t_ = s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error { return tx.MailSent(ctx, m.ID) })\n\tif failpoint.Hit(\"mail\", failpoint.BeforeCall) != nil {",
			test{"internal/e2e", "^TestAMailIsNotLostWithItsServer$", nil},
		},

		// The runner and its logs.
		{
			"a shim lives longer than its runner's lease", "internal/runner/shim.go",
			"\t\t\tif sinceBoot() >= s.until {\n\t\t\t\t// Somewhere", "\t\t\tif s.until < 0 {\n\t\t\t\t// Somewhere",
			test{"internal/runner", "^TestAShimEndsItsJobWithTheLease$", nil},
		},
		{
			"a runner without a lease starts a job", "internal/runner/server.go",
			"if s.lease > 0 && sinceBoot() >= s.lease {", "if s.lease < 0 {",
			test{"internal/runner", "^TestNothingStartsWithoutALease$", nil},
		},
		{
			"a start that was asked for too long ago is accepted", "internal/runner/server.go",
			"if spec.Asked > 0 && sinceBoot()-spec.Asked > AskedTime {", "if spec.Asked < 0 {",
			test{"internal/runner", "^TestNothingStartsWithoutALease$", nil},
		},
		{
			"a runner forgets what it has released", "internal/runner/server.go",
			"\ts.released = append(s.released, id)\n", "",
			test{"internal/runner", "^TestJobHandsOverWhatItMade$", nil},
		},
		{
			"a job is started twice", "internal/runner/server.go",
			"\tj, known := s.jobs[spec.ID]\n", "\tj, known := s.jobs[spec.ID]\n\tknown = known && j.status().Running\n",
			test{"internal/runner", "^TestStartIsIdempotent$", nil},
		},
		{
			"a job outlives its dead runner", "internal/runner/shim.go",
			"\ts.orphaned, s.controls = true, nil\n\tkillAll(s.leftovers)\n", "\ts.orphaned, s.controls = true, nil\n",
			test{"internal/runner", "^TestDeadRunnerTakesItsJobsAlong$", nil},
		},
		{
			"a runner that starts again does not know its jobs", "internal/runner/recover.go",
			"\t\tj := newJob(dir, rec, s.clock, s.log)\n", "\t\tif rec.ID != \"\" {\n\t\t\tcontinue\n\t\t}\n\t\tj := newJob(dir, rec, s.clock, s.log)\n",
			test{"internal/runner", "^TestDeadRunnerTakesItsJobsAlong$", nil},
		},
		{
			"a log begins again after a crash", "internal/engine/job.go",
			"offset := log.size.Load()", "offset := log.size.Load() * 0",
			engineTest("TestALogGoesOnWhereADeadServerWas"),
		},
		{
			"a log counts as whole before the object store has it", "internal/engine/ship.go",
			"if err == nil || ctx.Err() != nil {\n\t\t\treturn errors.Join(err, ctx.Err())", "if wait >= 0 {\n\t\t\treturn nil",
			engineTest("TestLogWaitsForTheObjectStore"),
		},
	}
}
