package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"mime"
	"net/http"
	"path"
	"strings"
)

//go:embed assets/*.js assets/*.css assets/*.svg assets/*.txt
var assetFiles embed.FS

// assets are the static files. Their address holds a digest of all of them, so
// that browsers may keep them for ever and an upgraded server is never shown
// with the old ones.
type assets struct {
	hash  string
	files map[string]assetFile
}

type assetFile struct {
	plain, gzipped []byte
	contentType    string
}

func loadAssets() (*assets, error) {
	entries, err := assetFiles.ReadDir("assets")
	if err != nil {
		return nil, fmt.Errorf("read assets: %w", err)
	}
	out := &assets{files: map[string]assetFile{}}
	sum := sha256.New()
	for _, e := range entries {
		b, err := assetFiles.ReadFile("assets/" + e.Name())
		if err != nil {
			return nil, fmt.Errorf("read asset: %w", err)
		}
		sum.Write(fmt.Appendf(nil, "%s %d\n", e.Name(), len(b)))
		sum.Write(b)
		var z bytes.Buffer
		zw := gzip.NewWriter(&z)
		if _, err := zw.Write(b); err != nil {
			return nil, fmt.Errorf("compress asset: %w", err)
		}
		if err := zw.Close(); err != nil {
			return nil, fmt.Errorf("compress asset: %w", err)
		}
		out.files[e.Name()] = assetFile{plain: b, gzipped: z.Bytes(), contentType: mime.TypeByExtension(path.Ext(e.Name()))}
	}
	out.hash = hex.EncodeToString(sum.Sum(nil))[:16]
	return out, nil
}

// url is the address of a static file.
func (a *assets) url(name string) string { return "/assets/" + a.hash + "/" + name }

func (s *server) asset(w http.ResponseWriter, r *http.Request) error {
	f, ok := s.assets.files[r.PathValue("name")]
	if !ok || r.PathValue("hash") != s.assets.hash {
		return notFound("no such file")
	}
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("ETag", `"`+s.assets.hash+`"`)
	h.Set("Vary", "Accept-Encoding")
	body := f.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = f.gzipped
	}
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}
