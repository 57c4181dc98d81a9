// Package runner runs jobs in a process of its own, so that a job outlives the
// server that asked for it. Its words:
//
//   - the runner is the process (Main); it owns a directory, of which it holds
//     the lock, and answers the versioned protocol /v1 over HTTP on a unix
//     socket in it; the server talks to it through a Client and starts one
//     with Spawn when none answers (ErrGone);
//   - a job is one attempt to run shell steps, known by its ID and never
//     started twice; the fence says which server asked, and a server with an
//     older fence is refused;
//   - a shim is the small process (Shim) between the runner and one job's
//     steps: leader of the job's session, and reaper of everything that the
//     job leaves behind. When the runner dies, by whatever signal, the shim
//     kills the job and itself, so nothing is orphaned;
//   - the cookie is the pair SHUNT_JOB and SHUNT_RUNNER in the environment of
//     every process of a job; a new runner finds by it what a dead runner and
//     a killed shim may have left;
//   - a daemon is a process with a session of its own, which a job may leave
//     behind only if its Spec says so: an environment that was started must
//     live on.
//
// A job's directory DIR/jobs/ID holds spec.json (which job, never a secret or
// a value of the environment), log (stored lines, see package runlog), home,
// tmp, out (collected files) and result.json, which is on disk before anybody
// is told that the job has finished. Whatever has no result when a runner
// starts is killed and called lost: nobody knows how it ended.
package runner
