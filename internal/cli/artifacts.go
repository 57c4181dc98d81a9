package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

func (a *app) artifactsCommand() *cobra.Command {
	cmd := command("artifacts [project] build", "List the artifacts of a build", cobra.RangeArgs(1, 2), func(ctx context.Context, args []string) error {
		c, project, number, err := a.target(ctx, args)
		if err != nil {
			return err
		}
		b, err := c.Build(ctx, project, number)
		if err != nil {
			return err
		}
		if a.json {
			return emitAll(a, b.Artifacts)
		}
		for _, art := range b.Artifacts {
			a.printf("%s  %s  %s  sha256 %s\n", clean(art.Name), clean(art.File), size(art.Size), art.SHA256)
			for _, p := range art.Published {
				a.printf("    published to %s\n", clean(p))
			}
		}
		return nil
	})
	var out string
	download := command("download [project] build name", "Download an artifact and check its digest", cobra.RangeArgs(2, 3), func(ctx context.Context, args []string) error {
		last := len(args) - 1
		c, project, number, err := a.target(ctx, args[:last])
		if err != nil {
			return err
		}
		return a.download(ctx, c, project, number, args[last], out)
	})
	download.Flags().StringVarP(&out, "output", "o", "", "file (the artifact's own name, here)")
	cmd.AddCommand(download)
	return cmd
}

// fetchArtifact copies an artifact to w and returns the digest of what came.
func fetchArtifact(ctx context.Context, c *api.Client, project string, number int64, name string, w io.Writer) (string, error) {
	r, err := c.Artifact(ctx, project, number, name)
	if err != nil {
		return "", err
	}
	defer r.Close() //nolint:errcheck // nothing is written
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, h), r); err != nil {
		return "", &delivery.Error{Kind: delivery.KindUnavailable, What: "the download broke off", Why: err.Error(), Next: "Try again.", Err: err}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (a *app) download(ctx context.Context, c *api.Client, project string, number int64, name, out string) (err error) {
	b, err := c.Build(ctx, project, number)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(b.Artifacts, func(art api.Artifact) bool { return art.Name == name })
	if i < 0 {
		return &delivery.Error{Kind: delivery.KindNotFound, What: "build " + itoa(number) + " has no artifact " + clean(name), Next: "shunt artifacts " + project + " " + itoa(number)}
	}
	art := b.Artifacts[i]
	if out == "" {
		if out = art.File; !plainName(out) {
			return usage("the artifact's own name is no plain file name", "Say where to:  -o FILE")
		}
		if _, err := os.Lstat(out); err == nil {
			return &delivery.Error{Kind: delivery.KindConflict, What: out + " is here already", Next: "Say where to:  -o FILE"}
		}
	}
	// Written beside its place and moved there when the digest is right.
	tmp, err := os.CreateTemp(filepath.Dir(out), ".shunt-download-")
	if err != nil {
		return fmt.Errorf("make a file: %w", err)
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // moved away, or rubbish
	digest, err := fetchArtifact(ctx, c, project, number, name, tmp)
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if digest != art.SHA256 {
		return &delivery.Error{Kind: delivery.KindInternal, What: "the bytes that came are not the artifact", Why: "their SHA-256 is " + digest + ", recorded is " + art.SHA256, Next: "Nothing was kept. Try again; if it stays so, the store is damaged:  shunt doctor"}
	}
	if err := os.Rename(tmp.Name(), out); err != nil {
		return fmt.Errorf("keep the file: %w", err)
	}
	if a.json {
		return a.emit(map[string]string{"file": out, "sha256": digest})
	}
	a.printf("%s  %s  sha256 %s\n", a.paint(green, "ok"), clean(out), digest)
	return nil
}

// plainName tells whether a name from outside may become a file here.
func plainName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.HasPrefix(name, "-") && !strings.ContainsAny(name, `/\`) && clean(name) == name
}
