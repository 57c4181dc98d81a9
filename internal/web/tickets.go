package web

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// maxTickets bounds how many tickets one text, or one list, links to.
const maxTickets = 20

// namedText is a part of a text; one that names a ticket has its address.
type namedText struct{ text, url string }

// namedTexts cuts a text at the tickets that it names. A pattern or an address that
// is not right leaves the text as it is.
func namedTexts(text string, t delivery.Tickets) (out []namedText) {
	re, err := regexp.Compile(t.Pattern)
	if t.Pattern == "" || err != nil {
		return []namedText{{text: text}}
	}
	end := 0
	for _, at := range re.FindAllStringIndex(text, maxTickets) {
		name := text[at[0]:at[1]]
		to := strings.Replace(t.URL, "{ticket}", strings.ReplaceAll(url.QueryEscape(name), "+", "%20"), 1)
		if name == "" || !external(to) {
			continue
		}
		if at[0] > end {
			out = append(out, namedText{text: text[end:at[0]]})
		}
		out = append(out, namedText{name, to})
		end = at[1]
	}
	if end < len(text) || text == "" {
		out = append(out, namedText{text: text[end:]})
	}
	return out
}

// ticketsOf are the tickets that commits name, each once.
func ticketsOf(commits []api.Commit, t delivery.Tickets) (out []namedText) {
	for _, c := range commits {
		for _, p := range namedTexts(c.Subject, t) {
			if p.url != "" && !slices.Contains(out, p) && len(out) < maxTickets {
				out = append(out, p)
			}
		}
	}
	return out
}
