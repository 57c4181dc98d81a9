// Package cli is the command line. Its vocabulary:
//
//   - a command is one verb; the process's arguments, streams and environment
//     come in through Main and an exit code goes out, so that a test runs the
//     real program;
//   - the client's configuration (server, token, project) is looked for in
//     flags, environment, the git configuration of the current repository and
//     ~/.config/shunt/config.json, in this order;
//   - a target is what most commands take, `[project] build`, where the project
//     may be left out when it is configured or the only one;
//   - output is one line per change and never redrawn; with --json it is JSON
//     lines. Whatever comes from a repository or a script is cleaned of control
//     characters before a person sees it;
//   - an exit code is 0 ok, 1 failed, 2 usage, 3 rejected, 4 waiting for a
//     person, 5 cancelled or expired.
//
// An error is printed as what could not be done, why, and what to run next.
package cli
