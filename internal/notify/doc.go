// Package notify tells people what happened, by mail.
//
//   - a kind is an occasion to write: a gate waits, a build failed, ...;
//   - Render turns a kind and its Data into a Message: plain text and HTML with
//     the same words;
//   - a message has a key, which becomes its Message-ID. The outbox may send it
//     twice after a lost answer, never under another key, so that mail programs
//     can tell. Its thread is the key that all mails of one build refer to;
//   - a Sender takes a message away: SMTP to a relay, Dir into a directory that
//     the mailbox page of the demo reads.
//
// Data is hostile throughout: branch names, commit messages and logs are text
// that somebody pushed. A mail carries no authority; its link only names a page.
package notify
