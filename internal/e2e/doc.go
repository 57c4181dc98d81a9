// Package e2e holds the tests of the whole product: the real binary, the real
// git, real processes, seen from outside as a person or a forge sees them.
//
// A *world* is one installation in a directory of its own, on a loopback address
// of its own, so that worlds run side by side: a server, a bare repository, a
// clone of it, and a journal (files that the pipeline's scripts write, which
// tell what really ran without asking the server).
//
// SHUNT_E2E_BINARY names a binary to test instead of the one built from here.
package e2e
