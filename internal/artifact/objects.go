package artifact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Objects is a part of a bucket in an S3-compatible object store: all keys below
// one prefix. What a call acknowledged is seen by every later call of every
// process (S3 has been strongly consistent since 2020; its imitations are).
//
// A missing object is fs.ErrNotExist, one that must not exist and does is
// fs.ErrExist. All other failures are *delivery.Error of KindUnavailable: the
// store is away, or does not let us in; nothing is known of the object.
type Objects struct {
	client *minio.Client
	bucket string
	prefix string // "" or ends with a slash
	host   string // for words
}

// Object is what a listing says of an object.
type Object struct {
	Key     string // below the prefix
	Size    int64  // bytes
	Changed time.Time
}

const (
	objectTries = 3                // of one request, before it is an error
	answerTime  = time.Minute      // until a request is answered
	listTime    = 10 * time.Minute // for a listing of any length
)

// OpenObjects reads where the objects are:
//
//	s3://BUCKET/PREFIX?endpoint=http://HOST:PORT&region=REGION
//
// Without an endpoint it is Amazon's. The credentials come from the environment
// (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN) or the file of
// Amazon's tools (~/.aws/credentials, AWS_SHARED_CREDENTIALS_FILE, AWS_PROFILE);
// an address that carries some is refused. Nothing is asked of the store yet.
func OpenObjects(address string) (*Objects, error) {
	bad := func(why string) error {
		return &delivery.Error{
			Kind: delivery.KindInvalid, What: "cannot use this object store", Why: why,
			Next: "Write it like this:  s3://bucket/prefix?endpoint=https://minio.example.org&region=us-east-1",
		}
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.Fragment != "" || u.Port() != "" {
		return nil, bad("its address does not begin with s3://bucket")
	}
	if u.User != nil {
		return nil, bad("its address carries a password, which everybody could see; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead")
	}
	prefix := strings.Trim(u.Path, "/")
	if prefix != "" {
		if prefix, err = checkDirectory(prefix); err != nil {
			return nil, bad(err.Error())
		}
		prefix += "/"
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, bad("what follows the ? cannot be read")
	}
	for name, values := range query {
		if name != "endpoint" && name != "region" || len(values) != 1 {
			return nil, bad("after the ? there may be endpoint and region, once each")
		}
	}
	endpoint, err := url.Parse(cmp.Or(query.Get("endpoint"), "https://s3.amazonaws.com"))
	if err != nil || endpoint.Scheme != "http" && endpoint.Scheme != "https" || endpoint.Host == "" || strings.Trim(endpoint.Path, "/") != "" || endpoint.User != nil || endpoint.RawQuery != "" {
		return nil, bad("its endpoint is not http://host:port or https://host")
	}
	client, err := minio.New(endpoint.Host, &minio.Options{
		Creds:  credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}}),
		Secure: endpoint.Scheme == "https", Region: cmp.Or(query.Get("region"), "us-east-1"), MaxRetries: objectTries,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: answerTime, IdleConnTimeout: 30 * time.Second,
			MaxIdleConnsPerHost: 16, DisableCompression: true, // the bytes are what was put
		},
	})
	if err != nil {
		return nil, bad(err.Error())
	}
	return &Objects{client: client, bucket: u.Host, prefix: prefix, host: endpoint.Host}, nil
}

// String names the store for people, without credentials.
func (o *Objects) String() string {
	return "s3://" + o.bucket + "/" + strings.TrimSuffix(o.prefix, "/") + " at " + o.host
}

// Put writes an object of size bytes and returns when the store has acknowledged
// it. With once it must not exist yet; if it does, the error is fs.ErrExist, also
// when it was our own request whose first answer got lost.
func (o *Objects) Put(ctx context.Context, key string, r io.Reader, size int64, once bool) error {
	ctx, cancel := context.WithTimeout(ctx, transferTimeout(size))
	defer cancel()
	opts := minio.PutObjectOptions{SendContentMd5: true, NumThreads: 2, ContentType: "application/octet-stream"}
	if once {
		opts.SetMatchETagExcept("*")
		opts.DisableMultipart = true // one request, one answer
	}
	info, err := o.client.PutObject(ctx, o.bucket, o.prefix+key, r, size, opts)
	if err == nil && info.Size != size {
		err = io.ErrUnexpectedEOF
	}
	return o.explain("write "+key, err)
}

// Get reads an object from an offset to its end; an offset behind the end reads
// nothing. The caller closes the reader.
func (o *Objects) Get(ctx context.Context, key string, offset int64) (io.ReadCloser, error) {
	var opts minio.GetObjectOptions
	if offset > 0 {
		if err := opts.SetRange(offset, 0); err != nil {
			return nil, o.explain("read "+key, err)
		}
	}
	body, _, _, err := minio.Core{Client: o.client}.GetObject(ctx, o.bucket, o.prefix+key, opts)
	if offset > 0 && minio.ToErrorResponse(err).StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return http.NoBody, nil
	}
	if err != nil {
		return nil, o.explain("read "+key, err)
	}
	return body, nil
}

// Stat tells of an object.
func (o *Objects) Stat(ctx context.Context, key string) (Object, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	info, err := o.client.StatObject(ctx, o.bucket, o.prefix+key, minio.StatObjectOptions{})
	if err != nil {
		return Object{}, o.explain("look at "+key, err)
	}
	return Object{Key: key, Size: info.Size, Changed: info.LastModified}, nil
}

// List lists the objects whose keys begin with prefix, by key.
func (o *Objects) List(ctx context.Context, prefix string) (all []Object, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	for info := range o.client.ListObjectsIter(ctx, o.bucket, minio.ListObjectsOptions{Prefix: o.prefix + prefix, Recursive: true}) {
		if info.Err != nil {
			return nil, o.explain("list "+prefix, info.Err)
		}
		key, ok := strings.CutPrefix(info.Key, o.prefix)
		if ok && !strings.HasSuffix(key, "/") {
			all = append(all, Object{Key: key, Size: info.Size, Changed: info.LastModified})
		}
	}
	return all, o.explain("list "+prefix, ctx.Err())
}

// Delete removes objects; those that are not there are no matter.
func (o *Objects) Delete(ctx context.Context, keys ...string) error {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	results, err := o.client.RemoveObjectsWithIter(ctx, o.bucket, func(yield func(minio.ObjectInfo) bool) {
		for _, key := range keys {
			if !yield(minio.ObjectInfo{Key: o.prefix + key}) {
				return
			}
		}
	}, minio.RemoveObjectsOptions{})
	if err != nil {
		return o.explain("remove objects", err)
	}
	for r := range results {
		if r.Err == nil {
			continue
		}
		// Some stores answer an error when two remove the same.
		key := strings.TrimPrefix(r.ObjectName, o.prefix)
		if _, err := o.Stat(ctx, key); !errors.Is(err, fs.ErrNotExist) {
			return o.explain("remove "+key, r.Err)
		}
	}
	return nil
}

// explain turns what the client says into the errors of Objects.
func (o *Objects) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	answer, _ := errors.AsType[minio.ErrorResponse](err)
	switch answer.Code {
	case minio.NoSuchKey, "NotFound":
		return fmt.Errorf("%s in %s: %w", what, o, fs.ErrNotExist)
	case minio.PreconditionFailed, "ConditionalRequestConflict":
		return fmt.Errorf("%s in %s: %w", what, o, fs.ErrExist)
	}
	why := "it does not answer"
	switch {
	case answer.Code == minio.NoSuchBucket:
		why = "there is no bucket " + o.bucket
	case answer.StatusCode == http.StatusForbidden || answer.StatusCode == http.StatusUnauthorized:
		why = "it does not let us in (" + clean(answer.Code, 60) + "): look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and at what they may do"
	case answer.StatusCode != 0 || answer.Code != "":
		why = strings.TrimSpace(fmt.Sprintf("it answered %d %s", answer.StatusCode, clean(answer.Code, 60)))
	case errors.Is(err, io.ErrUnexpectedEOF):
		why = "the transfer was cut short"
	}
	return &delivery.Error{Kind: delivery.KindUnavailable, What: "cannot " + clean(what, 200) + " in the object store " + o.String(), Why: why, Err: err}
}

// Check finds out whether the store does all that is asked of it: write, refuse
// to write again, read, list, remove.
func (o *Objects) Check(ctx context.Context, name string) error {
	key := "check/" + name
	refuse := func(why string, err error) error {
		return &delivery.Error{
			Kind: delivery.KindInvalid, What: "cannot use the object store " + o.String(), Why: why, Err: err,
			Next: "It must take conditional writes (If-None-Match) and be strongly consistent, as Amazon S3, MinIO, Ceph and versitygw do.",
		}
	}
	if err := o.Delete(ctx, key); err != nil {
		return err
	}
	for i := range 2 {
		switch err := o.Put(ctx, key, strings.NewReader("shunt"), 5, true); {
		case i == 0 && errors.Is(err, fs.ErrExist), i == 1 && err == nil:
			return refuse("it does not keep write-once objects", err)
		case i == 0 && err != nil, i == 1 && !errors.Is(err, fs.ErrExist):
			return err
		}
	}
	body, err := o.Get(ctx, key, 2)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(body, 100))
	if err := errors.Join(err, body.Close()); err != nil || string(text) != "unt" {
		return refuse("it does not read from an offset", err)
	}
	if all, err := o.List(ctx, key); err != nil || len(all) != 1 {
		return cmp.Or(err, refuse("it does not list what was written", nil))
	}
	if err := o.Delete(ctx, key); err != nil {
		return err
	}
	if _, err := o.Stat(ctx, key); !errors.Is(err, fs.ErrNotExist) {
		return cmp.Or(err, refuse("it does not remove", nil))
	}
	return nil
}
