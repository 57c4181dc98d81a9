package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

// SignWebhook returns the value of X-Shunt-Signature for a body:
// "sha256=" and the HMAC-SHA256 in hex, as GitHub writes it.
func SignWebhook(secret string, body []byte) string {
	return "sha256=" + hex.EncodeToString(mac(secret, body))
}

// VerifyWebhook checks the signature of a webhook over its raw body and returns
// its delivery id. It understands GitHub, Gitea, Forgejo, Gogs and Shunt's own
// hook. Every SHA-256 signature that is there must be right, and one must be;
// SHA-1 alone is not enough. All refusals are one error with constant words, so
// that the answer teaches nothing.
//
// The id is a header and therefore not signed: it spares work for honest
// repetitions, it does not keep a replay out. (A replay makes the server read
// the refs again, and nothing else.)
func VerifyWebhook(secret string, header http.Header, body []byte) (string, error) {
	if secret == "" {
		return "", badSignature()
	}
	want := mac(secret, body)
	right := 0
	for _, h := range []struct{ name, prefix string }{
		{"X-Hub-Signature-256", "sha256="},
		{"X-Gitea-Signature", ""},
		{"X-Gogs-Signature", ""},
		{"X-Shunt-Signature", "sha256="},
	} {
		for _, v := range header.Values(h.name) {
			text, ok := strings.CutPrefix(v, h.prefix)
			got, err := hex.DecodeString(text)
			if !ok || err != nil || !hmac.Equal(got, want) {
				return "", badSignature()
			}
			right++
		}
	}
	if right == 0 {
		return "", badSignature()
	}
	return deliveryID(header, body), nil
}

func mac(secret string, body []byte) []byte {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write(body)
	return m.Sum(nil)
}

// deliveryID is the forge's id of the delivery, or the digest of the body when
// there is none that is safe to store.
func deliveryID(header http.Header, body []byte) string {
	for _, name := range []string{"X-GitHub-Delivery", "X-Gitea-Delivery", "X-Gogs-Delivery", "X-Shunt-Delivery", "X-Gitlab-Event-UUID"} {
		if id := header.Get(name); safeID(id) {
			return id
		}
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

func safeID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for _, r := range id {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
		default:
			return false
		}
	}
	return true
}

func badSignature() *delivery.Error {
	return &delivery.Error{Kind: delivery.KindUnauthorized, What: "the webhook's signature is missing or wrong", Next: "Set the project's webhook secret in the forge, with content type JSON and HMAC-SHA256"}
}
