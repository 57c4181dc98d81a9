package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/api"
)

const (
	// hookTime is how long a push waits for the server's answer.
	hookTime = 10 * time.Second
	// hookAnswer bounds that answer, in bytes.
	hookAnswer = 1 << 20
	// hookRefs bounds how many refs of one push are named; the server reads them
	// all itself, whatever it is told.
	hookRefs = 1000
)

func (a *app) hookCommand() *cobra.Command {
	var h hook
	cmd := command("post-receive", "Tell the server of a push", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		h.a = a
		h.run(ctx)
		return nil // a push never fails because of us
	})
	f := cmd.Flags()
	f.StringVar(&h.url, "url", "", "address of the server")
	f.StringVar(&h.project, "project", "", "project")
	f.StringVar(&h.secretFile, "secret-file", "", "file with the webhook secret")
	g := group("hook", "Called by git", cmd)
	g.Hidden = true
	return g
}

// hook is git's post-receive hook of a local repository: it sends a signed
// webhook and prints the answer to the person who pushed.
type hook struct {
	a                        *app
	url, project, secretFile string
}

type hookRef struct {
	Old string `json:"old"`
	New string `json:"new"`
	Ref string `json:"ref"`
}

func (h *hook) run(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, hookTime)
	defer cancel()
	pushes, err := h.send(ctx, readRefs(h.a.stdin))
	if err != nil {
		h.a.printf("shunt: %s\n", clean(err.Error()))
		return
	}
	for _, p := range pushes {
		h.a.printf("%s", pushLines(p))
	}
}

// readRefs reads git's lines "old new ref". All of them are read, or git would
// be hit by a broken pipe.
func readRefs(r io.Reader) []hookRef {
	refs := []hookRef{}
	s := bufio.NewScanner(r)
	for s.Scan() {
		f := strings.SplitN(s.Text(), " ", 3)
		if len(f) == 3 && len(refs) < hookRefs {
			refs = append(refs, hookRef{f[0], f[1], f[2]})
		}
	}
	_, _ = io.Copy(io.Discard, r)
	return refs
}

// later is what a push is told when the server does not answer.
const later = "the server did not answer; it will see this push at its next poll"

func (h *hook) send(ctx context.Context, refs []hookRef) ([]api.Push, error) {
	secret, err := os.ReadFile(h.secretFile)
	if err != nil {
		return nil, fmt.Errorf("the hook's secret cannot be read; the server will see this push at its next poll (%w)", err)
	}
	body, err := json.Marshal(map[string]any{"refs": refs})
	if err != nil {
		return nil, err
	}
	address := strings.TrimSuffix(h.url, "/") + "/hooks/" + url.PathEscape(h.project) + "?wait=1"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("the hook's address is wrong: %w", err)
	}
	mac := hmac.New(sha256.New, bytes.TrimSpace(secret))
	mac.Write(body)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Shunt-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	req.Header.Set("X-Shunt-Delivery", rand.Text())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s", later)
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("the server answered %s; it will see this push at its next poll", resp.Status)
	}
	var pushes []api.Push
	if err := json.NewDecoder(io.LimitReader(resp.Body, hookAnswer)).Decode(&pushes); err != nil {
		return nil, fmt.Errorf("%s", later)
	}
	return pushes, nil
}

// pushLines is what the person who pushed reads. Each line begins with shunt:,
// which git shows behind "remote:".
func pushLines(p api.Push) string {
	ref := strings.TrimPrefix(p.Ref, "refs/heads/")
	if p.Refused != "" {
		text := "no build of " + ref + ": " + p.Refused
		return "shunt: " + strings.ReplaceAll(cleanLines(text), "\n", "\nshunt:   ") + "\n"
	}
	if p.Build == 0 {
		return ""
	}
	return clean(fmt.Sprintf("shunt: build %d of %s  %s", p.Build, ref, p.URL)) + "\n"
}
