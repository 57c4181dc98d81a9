// Package demo is `shunt demo`: the whole hotfix story on one machine, in one
// folder. Its vocabulary:
//
//   - the shop is a small web shop that the shunt binary itself serves from the
//     files of the sample repository, or from the artifact that a build made of
//     them; one of its templates has a real bug, and the fix is one line;
//   - a shop's state directory says where it runs (shop.json): its address and
//     a secret token, by which it can be asked to end and nothing else can be
//     hit by mistake, as a process id could;
//   - the folder holds the repository, its clone, the server's data, mails,
//     what production runs, and a mark by which a later demo knows it again;
//   - the supervisor keeps the server running: it starts it again when it dies,
//     because that is a thing that the demo is allowed to suffer;
//   - the story is what --auto plays, through the command line and the HTTP API
//     only, as a person would; a claim is something that it then checks itself.
package demo
