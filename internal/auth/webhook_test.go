package auth

import (
	"crypto/hmac"
	"crypto/sha1" // the test shows that it is refused
	"encoding/hex"
	"net/http"
	"strings"
	"testing"

	"github.com/shuntcd/shunt/internal/delivery"
)

// TestWebhookSignatures covers T28, T29 and T30.
func TestWebhookSignatures(t *testing.T) {
	t.Parallel()
	const secret = "s3cret"
	body := []byte(`{"ref":"refs/heads/develop"}`)
	good := SignWebhook(secret, body)
	bare := strings.TrimPrefix(good, "sha256=")
	old := hmac.New(sha1.New, []byte(secret))
	old.Write(body)
	sha1sum := "sha1=" + hex.EncodeToString(old.Sum(nil))
	h := func(kv ...string) http.Header {
		out := http.Header{}
		for i := 0; i < len(kv); i += 2 {
			out.Add(kv[i], kv[i+1])
		}
		return out
	}
	for name, tt := range map[string]struct {
		secret string
		header http.Header
		ok     bool
	}{
		"github":                     {secret, h("X-Hub-Signature-256", good), true},
		"github with sha-1 beside":   {secret, h("X-Hub-Signature-256", good, "X-Hub-Signature", sha1sum), true},
		"gitea":                      {secret, h("X-Gitea-Signature", bare), true},
		"forgejo sends all":          {secret, h("X-Gitea-Signature", bare, "X-Gogs-Signature", bare, "X-Hub-Signature-256", good), true},
		"gogs":                       {secret, h("X-Gogs-Signature", bare), true},
		"shunt":                      {secret, h("X-Shunt-Signature", good), true},
		"upper case hex":             {secret, h("X-Gitea-Signature", strings.ToUpper(bare)), true},
		"nothing":                    {secret, h(), false},
		"empty header":               {secret, h("X-Hub-Signature-256", ""), false},
		"prefix only":                {secret, h("X-Hub-Signature-256", "sha256="), false},
		"sha-1 only":                 {secret, h("X-Hub-Signature", sha1sum), false},
		"sha-1 in the sha-256 field": {secret, h("X-Hub-Signature-256", sha1sum), false},
		"other secret":               {"other", h("X-Hub-Signature-256", good), false},
		"empty secret":               {"", h("X-Hub-Signature-256", SignWebhook("", body)), false},
		"short":                      {secret, h("X-Hub-Signature-256", good[:20]), false},
		"long":                       {secret, h("X-Hub-Signature-256", good+"00"), false},
		"not hex":                    {secret, h("X-Gitea-Signature", strings.Repeat("z", 64)), false},
		"one right, one wrong":       {secret, h("X-Hub-Signature-256", good, "X-Gitea-Signature", strings.Repeat("0", 64)), false},
		"same header twice":          {secret, h("X-Hub-Signature-256", good, "X-Hub-Signature-256", "sha256="+strings.Repeat("0", 64)), false},
		"gitlab token only":          {secret, h("X-Gitlab-Token", secret), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id, err := VerifyWebhook(tt.secret, tt.header, body)
			if tt.ok != (err == nil) {
				t.Fatalf("err = %v, want ok %v", err, tt.ok)
			}
			if !tt.ok && (!delivery.IsKind(err, delivery.KindUnauthorized) || err.Error() != badSignature().Error()) {
				t.Errorf("err = %v, want the constant one", err)
			}
			if tt.ok && len(id) != 64 {
				t.Errorf("delivery = %q, want the body's digest", id)
			}
			if _, err := VerifyWebhook(tt.secret, tt.header, append([]byte("x"), body...)); err == nil {
				t.Error("another body is accepted")
			}
		})
	}
}

func TestDeliveryID(t *testing.T) {
	t.Parallel()
	for value, kept := range map[string]bool{
		"72d3162e-cc78-11e3-81ab-4c9367dc0958": true,
		"a_b.c":                                true,
		"":                                     false,
		"a b":                                  false,
		"<script>":                             false,
		strings.Repeat("a", 129):               false,
		"é":                                    false,
	} {
		for _, name := range []string{"X-GitHub-Delivery", "X-Gitea-Delivery", "X-Gogs-Delivery", "X-Shunt-Delivery", "X-Gitlab-Event-UUID"} {
			header := http.Header{}
			header.Set(name, value)
			if got := deliveryID(header, []byte("b")); (got == value) != kept {
				t.Errorf("%s: %q -> %q", name, value, got)
			}
		}
	}
}

func FuzzVerifyWebhook(f *testing.F) {
	f.Add("X-Hub-Signature-256", "sha256=00", []byte("{}"))
	f.Add("X-Gitea-Signature", strings.Repeat("0", 64), []byte(""))
	f.Fuzz(func(t *testing.T, name, value string, body []byte) {
		header := http.Header{name: {value}}
		if _, err := VerifyWebhook("a secret that the fuzzer does not know", header, body); err == nil {
			t.Fatalf("forged: %q: %q", name, value)
		}
		header.Set("X-Shunt-Signature", SignWebhook("k", body))
		header.Set("X-Shunt-Delivery", value)
		for _, n := range []string{"X-Hub-Signature-256", "X-Gitea-Signature", "X-Gogs-Signature"} {
			header.Del(n)
		}
		id, err := VerifyWebhook("k", header, body)
		if err != nil {
			if http.CanonicalHeaderKey(name) != name {
				return
			}
			t.Fatal(err)
		}
		if !safeID(id) {
			t.Fatalf("unsafe delivery id %q", id)
		}
	})
}
