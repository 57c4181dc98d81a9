// Package gitrepo talks to git by running the git binary (2.39 or newer).
//
// Its words: a mirror is the one bare repository that Shunt keeps per project,
// a cache that may be deleted at any time; the remote is the repository of the
// team, and its refs are the truth; a local remote is a path on this machine
// that the operator registered.
//
// Everything that comes out of a repository is hostile: branch names, messages,
// file names, configuration in a work tree. So there is one place that starts a
// process (command.run), and it
//
//   - gives data only as operands behind --end-of-options, and refuses an
//     operand that begins with a dash; no shell is involved;
//   - builds the environment from an allow-list, reads neither the system's nor
//     a user's configuration, and switches hooks, submodules, credential
//     helpers and redirects off;
//   - always names the repository, and never stands in a directory of content;
//   - kills the whole process group when the context ends.
//
// Revisions are full object ids or full ref names. Short ones are refused,
// because git looks for a ref of that name first and anybody who may push can
// make one.
//
// Errors that a person should read are *delivery.Error. A push whose answer was
// lost is unknown, never failed: see PushError.
package gitrepo
