// Package artifact keeps the files that builds make and pushes them to
// repositories.
//
//   - a blob is a sequence of bytes known by its SHA-256; the store keeps each
//     one once, under that name, and checks it whenever it is about to matter;
//   - a target is the place where the pipeline file wants an artifact to go:
//     the built-in store (files), any server that takes a PUT (raw), or Nexus 3;
//   - a publisher pushes an item to a target. It is one effect in three calls:
//     Preflight (may we write? asked before the build spends its minutes),
//     Publish (the act) and Probe (what does the target hold?).
//
// A release is written once. A second push of equal bytes is done already, and
// one of other bytes is refused. An answer that got lost is OutcomeUnknown:
// only Probe may turn it into something else, and nothing is pushed again blindly.
package artifact
