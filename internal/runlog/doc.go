// Package runlog turns what a job prints into a log that can be stored,
// followed and shown. Its words:
//
//   - a stored log is a file of stored lines, "<unix microseconds> <flag><text>\n";
//   - the flag says what the line is: complete (|), a part whose rest follows
//     in the next stored line (+), or a marker (#) written by Shunt itself,
//     which no job can forge because jobs never choose the flag;
//   - the text is kept raw, escape sequences and control bytes included; what
//     may be seen of it is decided when it is shown, by Spans and Strip;
//   - redaction comes before all that: a Redactor stands first in the stream
//     and knows the secrets of the job in the forms in which they usually
//     leak. It is a net for accidents and not a boundary: a job that wants to
//     betray its secret can always encode it in a form that nobody expects.
//
// A stored line is at most MaxText bytes of text, so every reader and writer
// here works in constant memory, whatever the job prints.
package runlog
