package web

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

const (
	cookieName   = "shunt_session"
	cookieMaxAge = 365 * 24 * 60 * 60 // seconds; the server ends idle sessions long before
)

// caller is who sent a request; the zero caller is nobody.
type caller struct {
	user  delivery.User
	addr  string
	token bool // by bearer token, not by cookie
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// guard asks who sent a request before any route sees it. Only routes on the
// open list answer nobody, and feeds to whoever shows a key; a path that matches no route is closed, too, so that
// no spelling of a path is worth guessing.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pattern := s.mux.Handler(r)
		if s.open[pattern] || pattern == feedPattern && r.URL.Query().Get("key") != "" { // feed checks the key
			next.ServeHTTP(w, r)
			return
		}
		c, err := s.identify(r)
		switch {
		case delivery.IsKind(err, delivery.KindUnauthorized):
			s.deny(w, r)
			return
		case err != nil:
			s.fail(w, r, err)
			return
		case !c.user.Operator && r.Method != http.MethodGet && r.Method != http.MethodHead && r.URL.Path != "/logout":
			s.fail(w, r, &delivery.Error{Kind: delivery.KindForbidden, What: "you may look, and change nothing", Why: c.user.Name + " is not an operator"})
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// identify reads the bearer token, or else the cookie. A wrong token is not
// forgiven because of a right cookie.
func (s *server) identify(r *http.Request) (caller, error) {
	c := caller{addr: r.RemoteAddr}
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, secret, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return c, anonymous()
		}
		u, err := s.Auth.Token(r.Context(), strings.TrimSpace(secret))
		c.user, c.token = u, true
		return c, err //nolint:wrapcheck // shown as it is
	}
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return c, anonymous()
	}
	c.user, err = s.Auth.Session(r.Context(), cookie.Value)
	return c, err //nolint:wrapcheck // shown as it is
}

func anonymous() *delivery.Error {
	return &delivery.Error{Kind: delivery.KindUnauthorized, What: "you are not signed in", Next: "In a browser: shunt login-link on the server.  In a terminal: shunt token"}
}

// deny answers a request from nobody: a page leads to the sign-in page, all
// else is 401.
func (s *server) deny(w http.ResponseWriter, r *http.Request) {
	page := (r.Method == http.MethodGet || r.Method == http.MethodHead) && !wantsJSON(r)
	switch {
	case !page:
		w.Header().Set("WWW-Authenticate", "Bearer")
		s.fail(w, r, anonymous())
	case r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.Header.Get("Sec-Fetch-Mode") == "navigate":
		// A link in a web mail. The cookie is SameSite=Strict, so the browser has
		// kept it back; it sends it when our own page leads to the same place.
		s.show(w, r, http.StatusOK, bouncePage(s.frame(r, "Opening"), r.URL.RequestURI()))
	default:
		http.Redirect(w, r, "/login?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
	}
}

func (s *server) loginPage(w http.ResponseWriter, r *http.Request) error {
	// The address holds a secret, which Referrer-Policy same-origin keeps here.
	// With no-referrer the form's Origin would be null, and be refused as foreign.
	q := r.URL.Query()
	v := loginView{frame: s.frame(r, "Sign in"), Once: q.Get("once"), Next: safeNext(q.Get("next"))}
	v.Chat = "Sign in to see this page"
	if strings.HasPrefix(v.Next, "/a/") {
		v.Chat = "Sign in to see this request"
	}
	return s.render(w, r, http.StatusOK, loginPage(v))
}

// login redeems a one-time link. It is a POST, because mail scanners open links.
func (s *server) login(w http.ResponseWriter, r *http.Request) error {
	if err := s.parseForm(w, r); err != nil {
		return err
	}
	session, err := s.Auth.RedeemOnce(r.Context(), r.PostForm.Get("once"))
	if err != nil {
		return err //nolint:wrapcheck // shown as it is
	}
	s.setCookie(w, session, cookieMaxAge)
	http.Redirect(w, r, safeNext(r.PostForm.Get("next")), http.StatusSeeOther) //nolint:gosec // safeNext stays on this server
	return nil
}

func (s *server) logout(w http.ResponseWriter, r *http.Request) error {
	if c, err := r.Cookie(cookieName); err == nil {
		if err := s.Auth.SignOut(r.Context(), c.Value); err != nil {
			return err //nolint:wrapcheck // shown as it is
		}
	}
	s.setCookie(w, "", -1)
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}

func (s *server) setCookie(w http.ResponseWriter, value string, maxAge int) {
	//nolint:gosec // Secure follows the public URL: the demo has no TLS
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, Secure: s.secure, SameSite: http.SameSiteStrictMode})
}

// safeNext keeps a path on this server and turns everything else into "/".
// Browsers read "//host" and "/\host" as another server.
func safeNext(next string) string {
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	u, err := url.Parse(next)
	if err != nil || u.Host != "" || u.Scheme != "" || strings.HasPrefix(u.Path, "//") {
		return "/"
	}
	return next
}
