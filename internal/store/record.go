package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// AuditRow is one line of the audit log. Hash is the SHA-256 over the hash of
// the row before and this row's fields, so that a changed row shows.
type AuditRow struct {
	Seq     int64
	At      time.Time
	Project string
	Number  int64
	Actor   string
	Action  string
	Detail  string
	Hash    string
}

func scanAudit(r scanner) (a AuditRow, err error) {
	err = r.Scan(&a.Seq, stamp{&a.At}, &a.Project, &a.Number, &a.Actor, &a.Action, &a.Detail, &a.Hash)
	return a, err
}

func (a AuditRow) chain(before string) string {
	h := sha256.New()
	for _, s := range []any{before, a.Seq, micros(a.At), a.Project, a.Number, a.Actor, a.Action, a.Detail} {
		text := fmt.Sprint(s)
		fmt.Fprintf(h, "%d:%s,", len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Audit appends a row.
func (t *Tx) Audit(ctx context.Context, project string, number int64, actor, action, detail string) error {
	seq, err := t.next(ctx, "audit")
	if err != nil {
		return err
	}
	before, err := list(ctx, t.db, scanText, `select hash from audit order by seq desc limit 1`)
	if err != nil {
		return err
	}
	a := AuditRow{Seq: seq, At: t.now, Project: project, Number: number, Actor: actor, Action: action, Detail: detail}
	a.Hash = a.chain(append(before, "")[0])
	_, err = t.exec(ctx, `insert into audit (seq, at, project, number, actor, action, detail, hash) values ($1,$2,$3,$4,$5,$6,$7,$8)`,
		a.Seq, micros(a.At), a.Project, a.Number, a.Actor, a.Action, a.Detail, a.Hash)
	return err
}

// AuditRows lists rows of a project ("": of all), newest first, below a sequence number (0: all).
func (q queries) AuditRows(ctx context.Context, project string, before int64, limit int) ([]AuditRow, error) {
	if before == 0 {
		before = math.MaxInt64
	}
	if project == "" {
		return list(ctx, q.db, scanAudit, `select seq, at, project, number, actor, action, detail, hash from audit where seq < $1 order by seq desc limit $2`, before, limit)
	}
	return list(ctx, q.db, scanAudit, `select seq, at, project, number, actor, action, detail, hash from audit
		where project = $1 and seq < $2 order by seq desc limit $3`, project, before, limit)
}

// LastAudit is the sequence number of the newest audit row; 0: there is none.
func (q queries) LastAudit(ctx context.Context) (int64, error) {
	return one(ctx, q.db, scanInt, "", `select coalesce(max(seq), 0) from audit`)
}

// AuditSince lists the newest rows of a project behind a sequence number with one
// of some actions; a number of a build and a detail narrow it (0, "": any).
func (q queries) AuditSince(ctx context.Context, project string, seq, number int64, detail string, actions []string, limit int) ([]AuditRow, error) {
	args, marks := []any{project, seq, number, detail, limit}, make([]string, 0, len(actions))
	for _, a := range actions {
		args = append(args, a)
		marks = append(marks, fmt.Sprint("$", len(args)))
	}
	return list(ctx, q.db, scanAudit, `select seq, at, project, number, actor, action, detail, hash from audit
		where project = $1 and seq > $2 and (number = $3 or $3 = 0) and (detail = $4 or $4 = '') and action in (`+strings.Join(marks, ", ")+`) order by seq desc limit $5`, args...)
}

// VerifyAudit recomputes the whole chain; broken is the first row that does not
// fit, or 0.
func (q queries) VerifyAudit(ctx context.Context) (rows, broken int64, err error) {
	all, err := list(ctx, q.db, scanAudit, `select seq, at, project, number, actor, action, detail, hash from audit order by seq`)
	if err != nil {
		return 0, 0, err
	}
	before := ""
	for i, a := range all {
		if a.Hash != a.chain(before) || a.Seq != int64(i)+1 {
			return int64(len(all)), a.Seq, nil
		}
		before = a.Hash
	}
	return int64(len(all)), 0, nil
}

// Mail is a message in the outbox.
type Mail struct {
	ID      int64
	Project string
	Kind    string
	Message string // JSON of the rendered message
	Tries   int
	At      time.Time
}

// Post puts a rendered message into the outbox.
func (t *Tx) Post(ctx context.Context, project, kind, message string) error {
	id, err := t.next(ctx, "outbox")
	if err != nil {
		return err
	}
	_, err = t.exec(ctx, `insert into outbox (id, project, kind, message, state, tries, next_at, error, created_at, sent_at) values ($1,$2,$3,$4,'waiting',0,$5,'',$5,0)`,
		id, project, kind, message, micros(t.now))
	t.Event(project, 0, "mail")
	return err
}

// DueMails lists messages that should be sent now.
func (q queries) DueMails(ctx context.Context, now time.Time, limit int) ([]Mail, error) {
	return list(ctx, q.db, func(r scanner) (m Mail, err error) {
		err = r.Scan(&m.ID, &m.Project, &m.Kind, &m.Message, &m.Tries, stamp{&m.At})
		return m, err
	}, `select id, project, kind, message, tries, created_at from outbox where state = 'waiting' and next_at <= $1 order by id limit $2`, micros(now), limit)
}

// MailSent notes that a message was taken by the mail server.
func (t *Tx) MailSent(ctx context.Context, id int64) error {
	_, err := t.exec(ctx, `update outbox set state = 'sent', sent_at = $2, error = '' where id = $1`, id, micros(t.now))
	return err
}

// MailFailed notes a failure: what rests of the message is tried again at next, or never (zero).
func (t *Tx) MailFailed(ctx context.Context, id int64, rest, why string, next time.Time) error {
	state := "waiting"
	if next.IsZero() {
		state = "refused"
	}
	_, err := t.exec(ctx, `update outbox set state = $2, tries = tries + 1, error = $3, next_at = $4, message = $5 where id = $1`, id, state, why, micros(next), rest)
	return err
}

// InsertUser adds a person.
func (s *Store) InsertUser(ctx context.Context, u delivery.User) error {
	return s.Write(ctx, func(ctx context.Context, t *Tx) error {
		_, err := t.exec(ctx, `insert into users (name, email, operator, created_at) values ($1,$2,$3,$4)`, u.Name, u.Email, flag(u.Operator), micros(t.now))
		return err
	})
}

func scanUser(r scanner) (u delivery.User, err error) {
	err = r.Scan(&u.Name, &u.Email, &u.Operator, stamp{&u.CreatedAt})
	return u, err
}

// User returns a person by name.
func (q queries) User(ctx context.Context, name string) (delivery.User, error) {
	return one(ctx, q.db, scanUser, "there is no user "+name, `select name, email, operator, created_at from users where name = $1`, name)
}

// Users lists all people.
func (q queries) Users(ctx context.Context) ([]delivery.User, error) {
	return list(ctx, q.db, scanUser, `select name, email, operator, created_at from users order by name`)
}

// InsertCredential adds a credential.
func (s *Store) InsertCredential(ctx context.Context, c delivery.Credential) error {
	return s.Write(ctx, func(ctx context.Context, t *Tx) error {
		_, err := t.exec(ctx, `insert into credentials (hash, kind, user_name, name, created_at, expires_at, used_at) values ($1,$2,$3,$4,$5,$6,0)`,
			c.Hash, c.Kind, c.User, c.Name, micros(c.CreatedAt), micros(c.ExpiresAt))
		return err
	})
}

// Credential returns a credential by the hash of its secret.
func (q queries) Credential(ctx context.Context, hash string) (delivery.Credential, error) {
	return one(ctx, q.db, func(r scanner) (c delivery.Credential, err error) {
		err = r.Scan(&c.Hash, &c.Kind, &c.User, &c.Name, stamp{&c.CreatedAt}, stamp{&c.ExpiresAt}, stamp{&c.UsedAt})
		return c, err
	}, "unknown credential", `select hash, kind, user_name, name, created_at, expires_at, used_at from credentials where hash = $1`, hash)
}

// UseCredential marks a credential as used; first is false when it was already.
func (s *Store) UseCredential(ctx context.Context, hash string, at time.Time) (first bool, err error) {
	err = s.Write(ctx, func(ctx context.Context, t *Tx) error {
		n, err := t.exec(ctx, `update credentials set used_at = $2 where hash = $1 and used_at = 0`, hash, micros(at))
		first = n == 1
		return err
	})
	return first, err
}

// TouchCredential notes when a credential was last seen.
func (s *Store) TouchCredential(ctx context.Context, hash string, at time.Time) error {
	return s.Write(ctx, func(ctx context.Context, t *Tx) error {
		_, err := t.exec(ctx, `update credentials set used_at = $2 where hash = $1`, hash, micros(at))
		return err
	})
}

// DeleteCredential removes a credential.
func (s *Store) DeleteCredential(ctx context.Context, hash string) error {
	return s.Write(ctx, func(ctx context.Context, t *Tx) error {
		_, err := t.exec(ctx, `delete from credentials where hash = $1`, hash)
		return err
	})
}

// SetSecret keeps a sealed secret.
func (t *Tx) SetSecret(ctx context.Context, project, name, sealed string) error {
	_, err := t.exec(ctx, `insert into secrets (project, name, sealed, updated_at) values ($1,$2,$3,$4)
		on conflict (project, name) do update set sealed = excluded.sealed, updated_at = excluded.updated_at`, project, name, sealed, micros(t.now))
	return err
}

// DeleteSecret removes a secret.
func (t *Tx) DeleteSecret(ctx context.Context, project, name string) error {
	return t.must(ctx, "there is no secret "+name, `delete from secrets where project = $1 and name = $2`, project, name)
}

// Secret returns a sealed secret.
func (q queries) Secret(ctx context.Context, project, name string) (string, error) {
	return one(ctx, q.db, scanText, "there is no secret "+name+" in project "+project, `select sealed from secrets where project = $1 and name = $2`, project, name)
}

// SecretNames lists the names of a project's secrets.
func (q queries) SecretNames(ctx context.Context, project string) ([]string, error) {
	return list(ctx, q.db, scanText, `select name from secrets where project = $1 order by name`, project)
}

// Meta returns a value of the installation, or "".
func (q queries) Meta(ctx context.Context, name string) (string, error) {
	v, err := list(ctx, q.db, scanText, `select value from meta where name = $1`, name)
	if err != nil || len(v) == 0 {
		return "", err
	}
	return v[0], nil
}

// SetMeta keeps a value of the installation.
func (t *Tx) SetMeta(ctx context.Context, name, value string) error {
	_, err := t.exec(ctx, `insert into meta (name, value) values ($1,$2) on conflict (name) do update set value = excluded.value`, name, value)
	return err
}
