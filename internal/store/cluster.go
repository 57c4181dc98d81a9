package store

import (
	"context"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Peer is one of the servers that share this database.
type Peer struct {
	ID        string
	Address   string // host:port where runners reach it; "": nowhere
	Version   string
	Worker    bool // it drives builds and shows no pages
	StartedAt time.Time
	HeardAt   time.Time
}

// Heartbeat notes that a server is there.
func (t *Tx) Heartbeat(ctx context.Context, p Peer) error {
	_, err := t.exec(ctx, `insert into servers (id, address, version, worker, started_at, heard_at) values ($1,$2,$3,$4,$5,$6)
		on conflict (id) do update set address = excluded.address, version = excluded.version, worker = excluded.worker, started_at = excluded.started_at, heard_at = excluded.heard_at`,
		p.ID, p.Address, p.Version, flag(p.Worker), micros(p.StartedAt), micros(t.now))
	return err
}

// Leave removes a server that ends.
func (t *Tx) Leave(ctx context.Context, id string) error {
	if _, err := t.exec(ctx, `delete from servers where id = $1`, id); err != nil {
		return err
	}
	_, err := t.exec(ctx, `update duties set lease_until = 0 where owner = $1`, id)
	return err
}

// Peers lists the servers that were heard after a time.
func (q queries) Peers(ctx context.Context, after time.Time) ([]Peer, error) {
	return list(ctx, q.db, func(r scanner) (p Peer, err error) {
		err = r.Scan(&p.ID, &p.Address, &p.Version, &p.Worker, stamp{&p.StartedAt}, stamp{&p.HeardAt})
		return p, err
	}, `select id, address, version, worker, started_at, heard_at from servers where heard_at > $1 order by id`, micros(after))
}

// Hold takes or renews a duty that one server at a time has, such as looking at
// remotes. held is false while somebody else's lease of it lasts.
func (t *Tx) Hold(ctx context.Context, duty, owner string, ttl time.Duration) (held bool, err error) {
	n, err := t.exec(ctx, `insert into duties (name, owner, fence, lease_until) values ($1,$2,1,$3)
		on conflict (name) do update set owner = excluded.owner, lease_until = excluded.lease_until,
		fence = case when duties.owner = excluded.owner then duties.fence else duties.fence + 1 end
		where duties.owner = excluded.owner or duties.lease_until < $4`, duty, owner, micros(t.now.Add(ttl)), micros(t.now))
	return n == 1, err
}

// Runner is a runner that renews its lease through the servers. Its jobs are
// killed before the lease ends, so that a job whose runner's lease is over does
// not run any more, wherever the runner is.
type Runner struct {
	ID         string // of the installation that started it
	Instance   string // of the process: new with every start
	Pools      []string
	Capacity   int // jobs of its pools at once
	Version    string
	Fence      int64 // grows whenever a lease has ended and another begins
	LeaseUntil time.Time
	HeardAt    time.Time
}

const runnerColumns = `id, instance, pools, capacity, version, fence, lease_until, heard_at`

func scanRunner(r scanner) (x Runner, err error) {
	err = r.Scan(&x.ID, &x.Instance, jsonText{&x.Pools}, &x.Capacity, &x.Version, &x.Fence, stamp{&x.LeaseUntil}, stamp{&x.HeardAt})
	return x, err
}

// RenewRunner extends a runner's lease, or begins a new one.
func (t *Tx) RenewRunner(ctx context.Context, r Runner, ttl time.Duration) (Runner, error) {
	if r.Pools == nil {
		r.Pools = []string{}
	}
	return one(ctx, t.tx, scanRunner, "no runner", `insert into runners (`+runnerColumns+`) values ($1,$2,$3,$4,$5,1,$6,$7)
		on conflict (id) do update set instance = excluded.instance, pools = excluded.pools, capacity = excluded.capacity, version = excluded.version,
		fence = case when runners.instance = excluded.instance and runners.lease_until >= $7 then runners.fence else runners.fence + 1 end,
		lease_until = excluded.lease_until, heard_at = excluded.heard_at returning `+runnerColumns,
		r.ID, r.Instance, toJSON(r.Pools), r.Capacity, r.Version, micros(t.now.Add(ttl)), micros(t.now))
}

// Runner returns a runner by its id.
func (q queries) Runner(ctx context.Context, id string) (Runner, error) {
	return one(ctx, q.db, scanRunner, "there is no runner "+id, `select `+runnerColumns+` from runners where id = $1`, id)
}

// RunnerAlive tells whether a runner's lease lasts, by the database's time.
func (t *Tx) RunnerAlive(ctx context.Context, id string) (bool, error) {
	r, err := t.Runner(ctx, id)
	if delivery.IsKind(err, delivery.KindNotFound) {
		return false, nil
	}
	return err == nil && r.LeaseUntil.After(t.now), err
}

// Load is a runner and how many attempts it runs.
type Load struct {
	Runner
	Jobs int64
}

// Loads lists the runners whose lease lasts after a time, and what they run.
func (q queries) Loads(ctx context.Context, now time.Time) ([]Load, error) {
	return list(ctx, q.db, func(r scanner) (l Load, err error) {
		err = r.Scan(&l.ID, &l.Instance, jsonText{&l.Pools}, &l.Capacity, &l.Version, &l.Fence, stamp{&l.LeaseUntil}, stamp{&l.HeardAt}, &l.Jobs)
		return l, err
	}, `select `+runnerColumns+`, (select count(*) from attempts a where a.runner = runners.id and a.state = 'running') from runners where lease_until > $1 order by id`, micros(now))
}

// AttemptRunner tells which runner an attempt was given to; "": the one of
// whoever drives the build, or there is no such attempt.
func (q queries) AttemptRunner(ctx context.Context, id string) (string, error) {
	runner, err := one(ctx, q.db, scanText, "no attempt", `select runner from attempts where id = $1`, id)
	if delivery.IsKind(err, delivery.KindNotFound) {
		return "", nil
	}
	return runner, err
}

// GiveAttempt gives an attempt to a runner, before it is asked to start it.
func (t *Tx) GiveAttempt(ctx context.Context, id, runner string) error {
	return t.must(ctx, "cannot give the attempt to a runner", `update attempts set runner = $2 where id = $1 and state = 'running' and runner = ''`, id, runner)
}

// ClaimAttempts gives the running attempts of a server that was alone until now
// to its runner.
func (t *Tx) ClaimAttempts(ctx context.Context, runner string) error {
	_, err := t.exec(ctx, `update attempts set runner = $1 where state = 'running' and runner = '' and not exists (select 1 from runners)`, runner)
	return err
}
