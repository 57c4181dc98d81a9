package pipeline

// This file declares every key of the pipeline file. Parse, Schema and
// Reference read it; nothing else knows a key. The tags:
//
//	key      the key in the file
//	doc      its meaning, one sentence, shown in editors and in the reference
//	default  the value when the key is absent, as one would write it
//	is       required, filled (not empty)
//	names    format of the names in a table
//	format   format of the text, see formatOf
//	enum     the texts allowed
//	min,max  range of a number
//	aka      what other systems call it, for did-you-mean

type fileShape struct {
	Version      number                        `key:"version" min:"1" max:"1" default:"1" doc:"Version of this format."`
	Name         text                          `key:"name" format:"project" doc:"Name of the project; the server's own name for it wins."`
	Branches     group[branchesShape]          `key:"branches" doc:"The branches that matter, in git-flow's words."`
	Tags         group[tagsShape]              `key:"tags" doc:"Templates of the tags that Shunt pushes; $N is the build number."`
	Jobs         table[group[jobShape]]        `key:"jobs" names:"name" is:"required,filled" aka:"stages,tasks" doc:"What runs. Jobs that need no environment are the CI part: they run before the build is tagged, in both lanes."`
	Publish      table[oneOrMany[group[dest]]] `key:"publish" names:"name" doc:"Where artifacts go once CI is green and the commit is tagged; by the name of the artifact."`
	Environments table[group[envShape]]        `key:"environments" names:"name" is:"required,filled" aka:"deploy,targets" doc:"Where builds are put. Exactly one permanent environment is production."`
	Notify       list[group[notifyShape]]      `key:"notify" aka:"notifications" doc:"Who gets mail about what."`
	Tickets      group[ticketsShape]           `key:"tickets" aka:"issues,tracker" doc:"Makes the names of tickets in commit messages links to your tracker, on the pages of builds, comparisons and gates."`
}

type ticketsShape struct {
	Pattern text `key:"pattern" format:"regexp" doc:"What a ticket looks like, as a regular expression (RE2), such as SHOP-[0-9]+."`
	URL     text `key:"url" format:"ticket-url" doc:"Where a ticket is; {ticket} stands for its name."`
}

type branchesShape struct {
	Integration text `key:"integration" format:"branch" default:"develop" aka:"develop" doc:"A push to it starts a build in the main lane."`
	Production  text `key:"production" format:"branch" default:"master" aka:"master,main" doc:"It moves to what is in production, together with the tag. May be the integration branch."`
	Hotfix      text `key:"hotfix" format:"hotfix" default:"hotfix/*" doc:"A push to a branch of this pattern starts a build in the hotfix lane."`
}

type tagsShape struct {
	Build      text `key:"build" format:"tag" default:"build/$N" doc:"Pushed when CI is green."`
	Production text `key:"production" format:"tag" default:"production/$N" doc:"Pushed when the deployment to production has succeeded."`
}

type jobShape struct {
	Lanes     texts                  `key:"lanes" enum:"main,hotfix" is:"filled" default:"main,hotfix" aka:"lane" doc:"The lanes in which the job runs; in the other one it is skipped and the gate says so."`
	Needs     texts                  `key:"needs" format:"name" aka:"depends_on,after,requires" doc:"Jobs and environments that come first. A job that needs an environment runs against it."`
	Steps     list[group[stepShape]] `key:"steps" is:"required,filled" aka:"script,commands,run" doc:"Shell commands, one after the other in one work directory; the first that fails ends the job."`
	Reports   group[reportsShape]    `key:"reports" doc:"Reports to read after the job."`
	Artifacts table[text]            `key:"artifacts" names:"name" format:"glob" doc:"Files that the job hands to the build: a name, and the path or glob of exactly one file. A name is used once in the whole file."`
	Timeout   duration               `key:"timeout" default:"1h" doc:"How long one attempt may take."`
	Retry     number                 `key:"retry" min:"0" max:"5" default:"0" aka:"retries" doc:"Extra attempts after a failure."`
	Secrets   texts                  `key:"secrets" format:"secret" doc:"Secrets that the job gets as environment variables of the same name."`
	Env       table[scalar]          `key:"env" names:"env" aka:"environment,variables" doc:"Environment variables."`
	RunsOn    text                   `key:"runs_on" format:"pool" aka:"runs-on,agent,pool" doc:"Pool of runners; any when absent."`
}

type stepShape struct {
	Name text `key:"name" doc:"What people see; the first line of run when absent."`
	Run  text `key:"run" format:"shell" is:"required" aka:"script,command,sh" doc:"Shell command."`
}

func (stepShape) shorthandKey() string { return "run" }

type reportsShape struct {
	JUnit texts `key:"junit" format:"glob" doc:"Globs of test reports in JUnit's XML format."`
}

// dest is a destination of an artifact.
type dest struct {
	Files       flag  `key:"files" doc:"true: Shunt's own artifact store."`
	Raw         text  `key:"raw" format:"build-url" doc:"One HTTP PUT to this URL."`
	Nexus       text  `key:"nexus" format:"url" doc:"Address of a Sonatype Nexus server."`
	Repository  text  `key:"repository" format:"repository" doc:"Nexus: the hosted repository; required."`
	Format      text  `key:"format" enum:"maven2,raw" doc:"Nexus: format of the repository; maven2 with coordinates, raw with directory."`
	Coordinates text  `key:"coordinates" format:"coordinates" doc:"Nexus maven2: where the file goes."`
	Directory   text  `key:"directory" format:"directory" doc:"Nexus raw: where the file goes."`
	Secrets     texts `key:"secrets" format:"secret" doc:"User and password, in this order, or one token."`
}

type envShape struct {
	Lanes      texts               `key:"lanes" enum:"main,hotfix" is:"filled" default:"main,hotfix" aka:"lane" doc:"The lanes that use the environment; production is in both."`
	Needs      texts               `key:"needs" format:"name" aka:"depends_on,after,requires" doc:"Jobs and environments that come first."`
	Ephemeral  flag                `key:"ephemeral" default:"false" doc:"true: one instance per build, made by up and destroyed by down."`
	Production flag                `key:"production" default:"false" doc:"true: this is production. Needed only when it is neither named production nor the only permanent environment."`
	Up         text                `key:"up" format:"shell" aka:"create,start" doc:"Ephemeral: makes an instance. Gets the artifacts, and writes url=... to $SHUNT_OUTPUT."`
	Ready      text                `key:"ready" format:"ready" aka:"health,healthcheck" doc:"Answers with a 2xx status when the environment works: a path below its URL, or a URL."`
	Down       text                `key:"down" format:"shell" aka:"destroy,stop" doc:"Ephemeral: destroys the instance. Always runs, also after a failed up."`
	Deploy     text                `key:"deploy" format:"shell" aka:"run,script" doc:"Permanent: puts the build in. Gets the artifacts, SHUNT_DEPLOY_ID and SHUNT_FENCE."`
	Verify     text                `key:"verify" format:"shell" doc:"Permanent: exits 0 when the deployment SHUNT_DEPLOY_ID is live; asked when an answer was lost."`
	URL        text                `key:"url" format:"url" doc:"Where the environment is; of an ephemeral one, when up writes none."`
	Keep       duration            `key:"keep" doc:"Ephemeral: how long an instance may live at most; 8h when absent."`
	Timeout    duration            `key:"timeout" default:"10m" doc:"How long up, down or deploy may take, with the wait for ready."`
	Secrets    texts               `key:"secrets" format:"secret" doc:"Secrets for the scripts; behind a gate they are released only after the approval."`
	Env        table[scalar]       `key:"env" names:"env" aka:"environment,variables" doc:"Environment variables for the scripts."`
	Approve    group[approveShape] `key:"approve" aka:"approval,manual" doc:"A person decides before the deployment. Production always asks."`
}

type approveShape struct {
	By       texts              `key:"by" format:"person" aka:"approvers,users" doc:"People and groups who may decide; the operators when empty."`
	Timeout  duration           `key:"timeout" default:"72h" doc:"How long the gate waits before it expires."`
	Remind   duration           `key:"remind" doc:"Time between reminders; none when absent."`
	Escalate texts              `key:"escalate" format:"email" doc:"Mail addresses written to when a reminder is unanswered."`
	Hotfix   group[hotfixShape] `key:"hotfix" doc:"What differs in the hotfix lane."`
}

type hotfixShape struct {
	By       texts    `key:"by" format:"person" aka:"approvers,users" doc:"As above; the same people when absent."`
	Timeout  duration `key:"timeout" default:"4h" doc:"As above."`
	Remind   duration `key:"remind" default:"15m" doc:"As above."`
	Escalate texts    `key:"escalate" format:"email" doc:"As above; the same addresses when absent."`
}

type notifyShape struct {
	Email texts `key:"email" format:"email" is:"required,filled" doc:"Mail addresses."`
	On    texts `key:"on" enum:"waiting,failed,promoted,rejected,back_merge,deploy_failed,reminder" is:"filled" default:"waiting,failed,promoted,rejected,back_merge,deploy_failed,reminder" aka:"events,when" doc:"What they get mail about; everything when absent."`
}
