package cli

import (
	"context"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

func (a *app) logCommand() *cobra.Command {
	var attempt int
	var follow, stored bool
	cmd := command("log [project] build [node]", "Print the log of a job or another node", cobra.RangeArgs(1, 3), func(ctx context.Context, args []string) error {
		node := ""
		if last := args[len(args)-1]; len(args) > 1 {
			if _, err := buildNumber(last); err != nil {
				node, args = last, args[:len(args)-1]
			}
		}
		c, project, number, err := a.target(ctx, args)
		if err != nil {
			return err
		}
		if node, err = a.chooseNode(ctx, c, project, number, node); err != nil {
			return err
		}
		format := "text"
		if stored {
			format = "stored"
		}
		r, err := c.Log(ctx, project, number, node, attempt, 0, follow, format)
		if err != nil {
			return err
		}
		defer r.Close() //nolint:errcheck // nothing is written
		_, err = io.Copy(a.logWriter(), r)
		return err
	})
	f := cmd.Flags()
	f.IntVar(&attempt, "attempt", 0, "attempt (the latest)")
	f.BoolVarP(&follow, "follow", "f", false, "go on until the node has ended")
	f.BoolVar(&stored, "stored", false, "with times, as it is stored")
	return cmd
}

// chooseNode accepts "smoke" for "job/smoke"; without a name it takes the node
// that failed, that runs, or that ran last.
func (a *app) chooseNode(ctx context.Context, c *api.Client, project string, number int64, name string) (string, error) {
	if strings.Contains(name, "/") || name == "tag" {
		return name, nil
	}
	b, err := c.Build(ctx, project, number)
	if err != nil {
		return "", err
	}
	var names []string
	chosen := ""
	for _, n := range b.Nodes {
		if len(n.Attempts) == 0 {
			continue
		}
		names = append(names, n.Name)
		if _, target, _ := strings.Cut(n.Name, "/"); name != "" && (n.Name == name || target == name) {
			return n.Name, nil
		}
		chosen = n.Name
		if n.State == delivery.NodeRunning {
			break
		}
	}
	switch {
	case name != "" || chosen == "":
		return "", &delivery.Error{Kind: delivery.KindNotFound, What: "build " + itoa(number) + " has no log of " + clean(name), Why: "it has: " + clean(strings.Join(names, ", "))}
	case b.WhyFailed != nil:
		chosen = b.WhyFailed.Node
	}
	a.note("%s", clean(chosen))
	return chosen, nil
}

// logWriter keeps a job from writing to the terminal anything but text and
// colours; into a pipe or file the bytes go as they are.
func (a *app) logWriter() io.Writer {
	if a.terminal() {
		return &tamer{w: a.out}
	}
	return a.out
}

// tamer lets only colour sequences (CSI ... m), tabs and newlines through;
// other control bytes become visible marks. It is a small state machine, so that
// a sequence may be cut anywhere.
type tamer struct {
	w     io.Writer
	esc   []byte // an unfinished escape sequence
	carry []byte // an unfinished character
}

// longestColor bounds a colour sequence, in bytes.
const longestColor = 64

func (t *tamer) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p)+16)
	for _, b := range p {
		switch {
		case len(t.esc) > 0:
			out = t.inside(out, b)
		case b == 0x1b:
			t.esc = append(t.esc, b)
		case b == '\n', b == '\t', b >= 0x20 && b != 0x7f:
			out = append(out, b)
		case b != '\r':
			out = append(out, "\ufffd"...)
		}
	}
	out = t.whole(out)
	_, err := t.w.Write(out)
	return len(p), err
}

// inside takes the next byte of an escape sequence.
func (t *tamer) inside(out []byte, b byte) []byte {
	t.esc = append(t.esc, b)
	switch {
	case len(t.esc) == 2 && b == '[', len(t.esc) > 2 && len(t.esc) < longestColor && (b >= '0' && b <= '9' || b == ';' || b == ':'):
		return out
	case len(t.esc) > 2 && b == 'm':
		out = append(out, t.esc...)
	default:
		out = append(out, "\ufffd"...)
		if b == '\n' {
			out = append(out, b)
		}
	}
	t.esc = t.esc[:0]
	return out
}

// whole replaces C1 controls, which some terminals obey, in whole characters, and
// keeps an unfinished one for later.
func (t *tamer) whole(out []byte) []byte {
	out = append(t.carry, out...)
	t.carry = nil
	for n := max(0, len(out)-utf8.UTFMax); n < len(out); n++ {
		if utf8.RuneStart(out[n]) && !utf8.FullRune(out[n:]) {
			t.carry, out = slices.Clone(out[n:]), out[:n]
		}
	}
	return []byte(strings.Map(func(r rune) rune {
		if r >= 0x80 && r < 0xa0 {
			return '\ufffd'
		}
		return r
	}, string(out)))
}
