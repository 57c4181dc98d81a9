package notify

import (
	"fmt"
	"html/template"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/shuntcd/shunt/internal/delivery"
)

// body is a mail before it is text or HTML. All its texts are clean.
type body struct {
	Subject string
	Lead    []string // paragraphs
	Rows    []row
	Quote   []string // preformatted, under QuoteTitle
	Title   string
	Type    []string // commands
	Ask     string   // words before the link: "Decide here"
	Link    string
	After   []string // lines after the link
}

type row struct{ Label, Value, URL, Note string }

// Render writes a message. From is the sender's address, publicHost the name
// under which people reach the server; it becomes the domain of Message-ID and
// List-Id. An unknown kind is an error.
func Render(kind Kind, d Data, from, publicHost string) (Message, error) {
	d = d.normal()
	b, ok := d.body(kind)
	if !ok {
		return Message{}, delivery.Errf(delivery.KindInvalid, "cannot write a mail", "its kind \""+line(string(kind), 40)+"\" is not known")
	}
	html, err := b.html()
	if err != nil {
		return Message{}, fmt.Errorf("render mail %s: %w", kind, err)
	}
	host := hostName(publicHost)
	m := Message{
		Key: d.Key, Thread: d.Thread, Host: host, Date: d.Now, From: from, To: d.To,
		Subject: header("[" + d.Project + "] " + b.Subject), Text: b.text(), HTML: html,
		List: idPart(d.Project) + "." + host,
	}
	if m.Thread == "" && d.Number > 0 {
		m.Thread = d.Project + ".build-" + strconv.FormatInt(d.Number, 10)
	}
	if m.Key == "" {
		m.Key = fmt.Sprintf("%s.%d.%s.%d", d.Project, d.Number, kind, d.Now.UnixMicro())
	}
	return m, nil
}

// text lays a mail out for a screen of fixed width.
func (b body) text() string {
	var blocks []string
	add := func(lines ...string) {
		if len(lines) > 0 {
			blocks = append(blocks, strings.Join(lines, "\n"))
		}
	}
	indented := func(lines []string) []string {
		out := make([]string, len(lines))
		for i, l := range lines {
			out[i] = strings.TrimRight("  "+l, " ")
		}
		return out
	}
	for _, p := range b.Lead {
		add(p)
	}
	var rows []string
	width := 9
	for _, r := range b.Rows {
		width = max(width, utf8.RuneCountInString(r.Label))
	}
	for _, r := range b.Rows {
		value := r.Value
		if r.Note != "" {
			value = fmt.Sprintf("%-33s %s", value, r.Note)
		}
		rows = append(rows, fmt.Sprintf("  %-*s %s", width, r.Label, value))
	}
	add(rows...)
	if len(b.Quote) > 0 {
		add(append([]string{b.Title}, indented(b.Quote)...)...)
	}
	if len(b.Type) > 0 {
		add(append([]string{"In a terminal:"}, indented(b.Type)...)...)
	}
	var end []string
	if b.Link != "" {
		end = append(end, b.Ask+":  "+b.Link)
	}
	add(append(end, b.After...)...)
	return strings.Join(blocks, "\n\n") + "\n"
}

// html lays the same words out for a phone: nothing to load, no scripts.
func (b body) html() (string, error) {
	t, err := template.New("mail").Parse(htmlText)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = t.Execute(&out, b)
	return out.String(), err
}

const htmlText = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark"></head>
<body style="font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:0 auto;padding:16px">
{{- range .Lead}}
<p style="margin:0 0 16px">{{.}}</p>
{{- end}}
{{- if .Rows}}
<table role="presentation" cellpadding="0" cellspacing="0" style="border-collapse:collapse;margin:0 0 16px">
{{- range .Rows}}
<tr><td style="padding:2px 16px 2px 0;vertical-align:top;opacity:.7">{{.Label}}</td><td style="padding:2px 0;overflow-wrap:anywhere">{{if .URL}}<a href="{{.URL}}">{{.Value}}</a>{{else}}{{.Value}}{{end}}{{if .Note}} {{.Note}}{{end}}</td></tr>
{{- end}}
</table>
{{- end}}
{{- if .Quote}}
<p style="margin:0">{{.Title}}</p>
<pre style="font:13px/1.4 ui-monospace,monospace;margin:0 0 16px;padding:8px;border:1px solid #888;white-space:pre-wrap;overflow-wrap:anywhere">
{{- range .Quote}}
{{.}}
{{- end}}
</pre>
{{- end}}
{{- if .Type}}
<p style="margin:0">In a terminal:</p>
<pre style="font:13px/1.4 ui-monospace,monospace;margin:0 0 16px;padding:8px;border:1px solid #888;white-space:pre-wrap;overflow-wrap:anywhere">
{{- range .Type}}
{{.}}
{{- end}}
</pre>
{{- end}}
{{- if .Link}}
<p style="margin:0 0 8px;font-size:18px">{{.Ask}}: <a href="{{.Link}}">{{.Link}}</a></p>
{{- end}}
{{- range .After}}
<p style="margin:0 0 4px;font-size:14px;opacity:.8">{{.}}</p>
{{- end}}
</body></html>
`
