package artifact

import (
	"bytes"
	"context"
	"encoding/json"
	"mime/multipart"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// nexusPublisher pushes to a Nexus Repository 3 with its components API:
// https://help.sonatype.com/en/components-api.html
type nexusPublisher struct {
	remote
	base       *url.URL
	repository string
	format     string
	maven      mavenCoordinates // format maven2
	directory  string           // format raw
}

func newNexusPublisher(t Target, client *http.Client) (*nexusPublisher, error) {
	u, err := baseURL(t.URL)
	if err != nil {
		return nil, err
	}
	p := &nexusPublisher{remote: newRemote(client, t, u.Host), base: u, repository: t.Repository, format: t.Format}
	if err := checkName("repository", t.Repository); err != nil {
		return nil, err
	}
	switch t.Format {
	case "maven2":
		p.maven, err = parseMaven(t.Coordinates)
	case "raw":
		p.directory, err = checkDirectory(t.Directory)
	default:
		err = badTarget("the format \"" + clean(t.Format, 40) + "\" of a Nexus repository is not supported; known are maven2 and raw")
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (p *nexusPublisher) place() string { return p.host + "/" + p.repository }

func (p *nexusPublisher) what(item Item) string {
	return "cannot publish " + clean(item.File, 100) + " to " + p.place()
}

// assetPath is where the item lives in the repository, without a leading slash.
func (p *nexusPublisher) assetPath(item Item) string {
	if p.format == "maven2" {
		return p.maven.path(item.File)
	}
	return path.Join(p.directory, item.File)
}

func (p *nexusPublisher) address(item Item) string {
	return below(p.base, "repository", p.repository, p.assetPath(item)).String()
}

func (p *nexusPublisher) rest(name string, query url.Values) string {
	u := below(p.base, "service/rest/v1", name)
	u.RawQuery = query.Encode()
	return u.String()
}

// Preflight asks whether Nexus is writable, and whether the repository exists and
// is one that takes uploads, as far as the user may know.
func (p *nexusPublisher) Preflight(ctx context.Context) error {
	what := "cannot publish to " + p.place()
	no := func(why, next string) error {
		return &PublishError{Outcome: OutcomeRefused, What: what, Why: why, Next: next}
	}
	away := func(err error) error {
		return &PublishError{Outcome: OutcomeRefused, Temporary: true, What: what, Why: p.host + " cannot be reached", Err: p.redactError(err)}
	}
	status, answer, err := p.get(ctx, p.rest("status/writable", nil))
	switch {
	case err != nil:
		return away(err)
	case status == http.StatusServiceUnavailable:
		return &PublishError{Outcome: OutcomeRefused, Temporary: true, What: what, Why: "Nexus is not writable now: starting, read-only or out of disk (503)"}
	case status == http.StatusNotFound:
		return no("there is no Nexus 3 at "+p.base.Redacted()+" (404)", "Check the URL of the target.")
	case status != http.StatusOK:
		return p.preflightAnswer(what, status, answer)
	}
	status, answer, err = p.get(ctx, p.rest("repositories/"+p.repository, nil))
	switch {
	case err != nil:
		return away(err)
	case status == http.StatusForbidden:
		return nil // a user who may only upload need not see the configuration
	case status == http.StatusNotFound:
		return no("it has no repository "+p.repository+" (404)", "Check the repository of the target.")
	case status != http.StatusOK:
		return p.preflightAnswer(what, status, answer)
	}
	var repo struct{ Format, Type string }
	if err := json.Unmarshal(answer, &repo); err != nil {
		return no("it does not answer like Nexus 3", "Check the URL of the target.")
	}
	switch {
	case repo.Format != p.format:
		return no("the repository has the format "+clean(repo.Format, 40)+", the target "+p.format, "Change the format in the pipeline file, or the repository.")
	case repo.Type != "hosted":
		return no("the repository is a "+clean(repo.Type, 40)+" one, which takes no uploads", "Use a hosted repository.")
	}
	return nil
}

// preflightAnswer explains an answer to a question: nothing was pushed, so
// nothing is unknown.
func (p *nexusPublisher) preflightAnswer(what string, status int, answer []byte) error {
	e := p.explain(what, status, answer)
	e.Temporary = e.Temporary || e.Outcome == OutcomeUnknown
	e.Outcome = OutcomeRefused
	return e
}

// Publish looks first, because a repository may be set to allow redeploys and
// would overwrite.
func (p *nexusPublisher) Publish(ctx context.Context, item Item) (Receipt, error) {
	receipt, found, err := p.Probe(ctx, item)
	if found || refused(err) {
		return receipt, err
	}
	head, tail, contentType, err := p.form(item)
	if err != nil {
		return Receipt{}, &PublishError{Outcome: OutcomeRefused, What: p.what(item), Why: "the upload cannot be written", Err: err}
	}
	header := http.Header{"Content-Type": {contentType}, "Accept": {"application/json"}}
	to := p.rest("components", url.Values{"repository": {p.repository}})
	status, err := p.upload(ctx, p.what(item), item, http.MethodPost, to, header, head, tail)
	if status == http.StatusBadRequest || status == http.StatusConflict {
		return repeated(ctx, p, item, err) // Nexus answers 400 when a release repository holds it already
	}
	if err != nil {
		return Receipt{}, err
	}
	return Receipt{URL: p.address(item), SHA256: item.SHA256}, nil
}

// form writes the multipart body around the file: all fields, then the asset.
func (p *nexusPublisher) form(item Item) (head, tail []byte, contentType string, err error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	fields := [][2]string{
		{"raw.directory", "/" + p.directory},
		{"raw.asset1.filename", item.File},
	}
	asset := "raw.asset1"
	if p.format == "maven2" {
		ext := p.maven.extensionFor(item.File)
		asset = "maven2.asset1"
		fields = [][2]string{
			{"maven2.groupId", p.maven.group},
			{"maven2.artifactId", p.maven.artifact},
			{"maven2.version", p.maven.version},
			{"maven2.generate-pom", "true"},
			{"maven2.packaging", ext},
			{"maven2.asset1.extension", ext},
		}
		if p.maven.classifier != "" {
			fields = append(fields, [2]string{"maven2.asset1.classifier", p.maven.classifier})
		}
	}
	for _, f := range fields {
		if err := w.WriteField(f[0], f[1]); err != nil {
			return nil, nil, "", err
		}
	}
	if _, err := w.CreateFormFile(asset, item.File); err != nil {
		return nil, nil, "", err
	}
	split := b.Len()
	if err := w.Close(); err != nil {
		return nil, nil, "", err
	}
	return b.Bytes()[:split:split], b.Bytes()[split:], w.FormDataContentType(), nil
}

// Probe first asks the index for the digest, which costs no transfer. The index
// runs behind the repository, and a checksum file beside the asset could be
// anybody's, so only a match counts; otherwise the bytes themselves are read.
func (p *nexusPublisher) Probe(ctx context.Context, item Item) (Receipt, bool, error) {
	what := p.what(item)
	if err := checkItem(what, item); err != nil {
		return Receipt{}, false, err
	}
	receipt := Receipt{URL: p.address(item), SHA256: item.SHA256}
	if p.indexed(ctx, item) {
		return receipt, true, nil
	}
	found, err := p.compare(ctx, what, item, p.address(item))
	if err != nil || !found {
		return Receipt{}, false, err
	}
	return receipt, true, nil
}

// indexed tells whether the search index has the item's digest at its path.
func (p *nexusPublisher) indexed(ctx context.Context, item Item) bool {
	status, answer, err := p.get(ctx, p.rest("search/assets", url.Values{"repository": {p.repository}, "sha256": {item.SHA256}}))
	if err != nil || status != http.StatusOK {
		return false
	}
	var page struct {
		Items []struct {
			Path, Repository string
			Checksum         struct{ SHA256 string }
		}
	}
	if json.Unmarshal(answer, &page) != nil {
		return false
	}
	for _, i := range page.Items {
		if strings.TrimPrefix(i.Path, "/") == p.assetPath(item) && i.Repository == p.repository && i.Checksum.SHA256 == item.SHA256 {
			return true
		}
	}
	return false
}
