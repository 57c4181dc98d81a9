package store

import (
	"context"
	"fmt"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

const freezeColumns = `id, project, begins, ends, reason, by_user, created_at, ended_by, ended_at, ended_why`

func scanFreeze(r scanner) (f delivery.Freeze, err error) {
	err = r.Scan(&f.ID, &f.Project, stamp{&f.Begins}, stamp{&f.Ends}, &f.Reason, &f.By, stamp{&f.CreatedAt}, &f.EndedBy, stamp{&f.EndedAt}, &f.EndedWhy)
	return f, err
}

// Freeze returns a project's freeze.
func (q queries) Freeze(ctx context.Context, project string, id int64) (delivery.Freeze, error) {
	return one(ctx, q.db, scanFreeze, fmt.Sprintf("there is no freeze %d in project %s", id, project), `select `+freezeColumns+` from freezes where project = $1 and id = $2`, project, id)
}

// Freezes lists a project's freezes, those that begin last first.
func (q queries) Freezes(ctx context.Context, project string, limit int) ([]delivery.Freeze, error) {
	return list(ctx, q.db, scanFreeze, `select `+freezeColumns+` from freezes where project = $1 order by begins desc, id desc limit $2`, project, limit)
}

// FreezesAhead lists the freezes of a project ("": of all) that at a time are
// active or to come, those that begin first first.
func (q queries) FreezesAhead(ctx context.Context, project string, now time.Time) ([]delivery.Freeze, error) {
	only, args := ofProject("project", project)
	return list(ctx, q.db, scanFreeze, `select `+freezeColumns+` from freezes where `+only+` and ended_at = 0 and ends > $`+fmt.Sprint(len(args)+1)+` order by begins, id`, append(args, micros(now))...)
}

// FreezesBegun lists a project's freezes that began before a time, newest first;
// one that was taken back never began.
func (q queries) FreezesBegun(ctx context.Context, project string, before time.Time, limit int) ([]delivery.Freeze, error) {
	return list(ctx, q.db, scanFreeze, `select `+freezeColumns+` from freezes where project = $1 and begins < $2 and (ended_at = 0 or ended_at > begins)
		order by begins desc, id desc limit $3`, project, micros(before), limit)
}

// FreezesTurned lists the projects in which a freeze began or ended by the clock
// after a time, and until another; each once or more.
func (q queries) FreezesTurned(ctx context.Context, after, until time.Time) ([]string, error) {
	return list(ctx, q.db, scanText, `select project from freezes where ended_at = 0 and ends > $1 and (ends <= $2 or begins > $1 and begins <= $2)`, micros(after), micros(until))
}

// InsertFreeze writes a plan down and gives it its number.
func (t *Tx) InsertFreeze(ctx context.Context, f delivery.Freeze) (delivery.Freeze, error) {
	id, err := t.next(ctx, "freeze")
	if err != nil {
		return f, err
	}
	_, err = t.exec(ctx, `insert into freezes (`+freezeColumns+`) values ($1,$2,$3,$4,$5,$6,$7,'',0,'')`,
		id, f.Project, micros(f.Begins), micros(f.Ends), f.Reason, f.By, micros(t.now))
	if err != nil {
		return f, err
	}
	return t.Freeze(ctx, f.Project, id)
}

// EndFreeze ends a freeze early, or takes it back before it began.
func (t *Tx) EndFreeze(ctx context.Context, id int64, by, why string) error {
	return t.must(ctx, fmt.Sprintf("cannot end freeze %d", id), `update freezes set ended_by = $2, ended_at = $3, ended_why = $4 where id = $1 and ended_at = 0 and ends > $3`, id, by, micros(t.now), why)
}
