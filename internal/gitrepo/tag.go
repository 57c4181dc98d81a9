package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// MakeTag writes an annotated tag object into the mirror and returns its id.
// The short name goes into the object; the ref refs/tags/<name> is made by Push.
func (r *Repo) MakeTag(ctx context.Context, name, commit string, m Message) (object string, err error) {
	if r.invalid != nil {
		return "", r.invalid
	}
	if err = checkRef(tags + name); err != nil {
		return "", err
	}
	if err = checkID(commit); err != nil {
		return "", err
	}
	if err = m.check(); err != nil {
		return "", err
	}
	c := r.inside("mktag", "--strict")
	c.stdin = strings.NewReader(fmt.Sprintf("object %s\ntype commit\ntag %s\ntagger %s <%s> %d +0000\n\n%s",
		commit, name, m.Name, m.Email, m.At.Unix(), m))
	out, err := r.run(ctx, c)
	if err != nil {
		return "", r.missing([]string{commit}, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// maxNested is how many tags of tags are followed.
const maxNested = 5

// ReadTag reads a tag object of the mirror: the commit that it names, its
// trailers (key to values) and its subject. The id of a commit, which is what a
// tag without annotation points to, gives that commit and nothing else.
func (r *Repo) ReadTag(ctx context.Context, object string) (commit string, trailers map[string][]string, subject string, err error) {
	if r.invalid != nil {
		return "", nil, "", r.invalid
	}
	for range maxNested {
		if err = checkID(object); err != nil {
			return "", nil, "", err
		}
		kind, content, err := r.object(ctx, object)
		switch {
		case err != nil:
			return "", nil, "", err
		case kind == "commit":
			return object, trailers, subject, nil
		case kind != "tag":
			return "", nil, "", delivery.Errf(delivery.KindInvalid, "bad tag", "it names a "+kind+", not a commit")
		}
		header, message, _ := strings.Cut(content, "\n\n")
		if subject == "" {
			subject, _, _ = strings.Cut(message, "\n")
			subject, trailers = lines(subject), parseTrailers(message)
		}
		target, rest, _ := strings.Cut(strings.TrimPrefix(header, "object "), "\n")
		if strings.HasPrefix(rest, "type commit\n") && isID(target) {
			return target, trailers, subject, nil
		}
		object = target
	}
	return "", nil, "", delivery.Errf(delivery.KindInvalid, "bad tag", "it is a tag of a tag of a tag")
}

// object reads an object and its type in one process.
func (r *Repo) object(ctx context.Context, id string) (kind, content string, err error) {
	c := r.inside("cat-file", "--batch")
	c.stdin = strings.NewReader(id + "\n")
	c.max = 1 << 20
	out, err := r.run(ctx, c)
	if err != nil && !errors.Is(err, errTooMuch) {
		return "", "", err
	}
	header, content, _ := strings.Cut(string(out), "\n")
	f := strings.Fields(header) // id, type, size
	if len(f) != 3 || f[0] != id {
		return "", "", r.notFound(id, nil)
	}
	if size, err := strconv.Atoi(f[2]); err == nil && size <= len(content) {
		content = content[:size]
	}
	return f[1], content, nil
}

// parseTrailers reads the last paragraph of a message, if all of it is trailers.
// A signature behind the message is not part of it.
func parseTrailers(message string) map[string][]string {
	if i := strings.Index(message, "\n-----BEGIN "); i >= 0 {
		message = message[:i]
	}
	message = strings.TrimRight(message, "\n")
	i := strings.LastIndex(message, "\n\n")
	if i < 0 {
		return nil
	}
	trailers := make(map[string][]string)
	for line := range strings.SplitSeq(message[i+2:], "\n") {
		key, value, ok := strings.Cut(line, ": ")
		if !ok || !trailerKey(key) {
			return nil
		}
		trailers[key] = append(trailers[key], lines(value))
	}
	return trailers
}

// TagInfo is what an annotated tag says.
type TagInfo struct {
	Commit   string
	Subject  string
	Trailers map[string][]string // of the last paragraph
	Tagger   string              // "Shunt <shunt@localhost>"; hostile
	At       time.Time           // the tagger's date; zero without an annotation
}

// TagInfo reads what a tag says: ReadTag, and who made it when. Whoever may push
// may write anything into a tag.
func (r *Repo) TagInfo(ctx context.Context, object string) (info TagInfo, err error) {
	if info.Commit, info.Trailers, info.Subject, err = r.ReadTag(ctx, object); err != nil || info.Commit == object {
		return info, err
	}
	_, content, err := r.object(ctx, object)
	if err != nil {
		return info, err
	}
	header, _, _ := strings.Cut(content, "\n\n")
	for line := range strings.Lines(header) {
		who, ok := strings.CutPrefix(strings.TrimSpace(line), "tagger ")
		end := strings.LastIndex(who, "> ")
		if !ok || end < 0 {
			continue
		}
		seconds, _, _ := strings.Cut(who[end+2:], " ")
		if n, err := strconv.ParseInt(seconds, 10, 64); err == nil && n > 0 && n < maxUnix {
			info.Tagger, info.At = lines(who[:end+1]), time.Unix(n, 0).UTC()
		}
	}
	return info, nil
}
