// Package delivery holds the nouns of continuous delivery and their legal
// transitions. It does no I/O and imports only the standard library; every
// other package speaks in its words:
//
//   - a project is one git repository and its pipeline file .shunt.yml;
//   - a lane is a road to production: main (a push to the integration branch)
//     or hotfix (a push to a hotfix branch);
//   - a build is one commit on one lane, numbered per project, never reused;
//   - a build is driven along a graph of nodes: jobs, the build tag, publishing,
//     environments up and down, the gate, the deployment, the release;
//   - a job is shell steps run by the runner; it has attempts;
//   - an artifact is a named file of a build, known by its SHA-256;
//   - an environment is ephemeral (one instance per build) or permanent;
//   - a gate is the human decision before an environment: promote or reject;
//   - a deployment is one attempt to put a build into an environment;
//   - an effect is anything done outside the database: it is written down
//     before it starts and confirmed after, and a lost answer is unknown;
//   - a back-merge is the debt of a production commit that the integration
//     branch does not contain yet.
package delivery
