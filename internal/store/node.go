package store

import (
	"context"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

const nodeColumns = `build_id, name, kind, target, needs, position, state, reason, attempt, started_at, finished_at`

func scanNode(r scanner) (n delivery.Node, err error) {
	err = r.Scan(&n.BuildID, &n.Name, &n.Kind, &n.Target, jsonText{&n.Needs}, &n.Position, &n.State, &n.Reason, &n.Attempt, stamp{&n.StartedAt}, stamp{&n.FinishedAt})
	return n, err
}

// Nodes lists a build's graph in display order.
func (q queries) Nodes(ctx context.Context, buildID int64) ([]delivery.Node, error) {
	return list(ctx, q.db, scanNode, `select `+nodeColumns+` from nodes where build_id = $1 order by position, name`, buildID)
}

// InsertNodes adds nodes to a build's graph.
func (t *Tx) InsertNodes(ctx context.Context, buildID int64, nodes []delivery.Node) error {
	for _, n := range nodes {
		if n.Needs == nil {
			n.Needs = []string{}
		}
		if _, err := t.exec(ctx, `insert into nodes (`+nodeColumns+`) values ($1,$2,$3,$4,$5,$6,$7,$8,0,0,0)`,
			buildID, n.Name, n.Kind, n.Target, toJSON(n.Needs), n.Position, n.State, n.Reason); err != nil {
			return err
		}
	}
	return nil
}

// SetNode writes a node as its owner has it: state, reason, attempt and times.
// The caller has called Guard in this transaction.
func (t *Tx) SetNode(ctx context.Context, n delivery.Node) error {
	return t.must(ctx, "cannot change "+n.Name, `update nodes set state = $3, reason = $4, attempt = $5, started_at = $6, finished_at = $7 where build_id = $1 and name = $2`,
		n.BuildID, n.Name, n.State, n.Reason, n.Attempt, micros(n.StartedAt), micros(n.FinishedAt))
}

const attemptColumns = `id, build_id, node, attempt, fence, state, exit_code, reason, started_at, finished_at`

func scanAttempt(r scanner) (a delivery.Attempt, err error) {
	err = r.Scan(&a.ID, &a.BuildID, &a.Node, &a.Attempt, &a.Fence, &a.State, &a.ExitCode, &a.Reason, stamp{&a.StartedAt}, stamp{&a.FinishedAt})
	return a, err
}

// Attempts lists a build's attempts, oldest first.
func (q queries) Attempts(ctx context.Context, buildID int64) ([]delivery.Attempt, error) {
	return list(ctx, q.db, scanAttempt, `select `+attemptColumns+` from attempts where build_id = $1 order by started_at, attempt`, buildID)
}

// Attempt returns an attempt by its id.
func (q queries) Attempt(ctx context.Context, id string) (delivery.Attempt, error) {
	return one(ctx, q.db, scanAttempt, "there is no such attempt", `select `+attemptColumns+` from attempts where id = $1`, id)
}

// InsertAttempt adds an attempt that is about to run.
func (t *Tx) InsertAttempt(ctx context.Context, a delivery.Attempt) error {
	_, err := t.exec(ctx, `insert into attempts (`+attemptColumns+`) values ($1,$2,$3,$4,$5,'running',0,'',$6,0)`,
		a.ID, a.BuildID, a.Node, a.Attempt, a.Fence, micros(t.now))
	return err
}

// EndAttempt writes how an attempt ended, once.
func (t *Tx) EndAttempt(ctx context.Context, a delivery.Attempt) error {
	return t.must(ctx, "cannot end the attempt", `update attempts set state = $2, exit_code = $3, reason = $4, finished_at = $5 where id = $1 and state = 'running'`,
		a.ID, a.State, a.ExitCode, a.Reason, micros(t.now))
}

// Durations lists the durations of the last successes of each node name, newest
// first, over the last 20 builds of a lane that ran it.
func (q queries) Durations(ctx context.Context, project string) (map[string][]time.Duration, error) {
	type row struct {
		name string
		d    int64
	}
	rows, err := list(ctx, q.db, func(r scanner) (x row, err error) {
		err = r.Scan(&x.name, &x.d)
		return x, err
	}, `select n.name, n.finished_at - n.started_at from nodes n join builds b on b.id = n.build_id
		where b.project = $1 and b.id in (select id from builds where project = $1 order by number desc limit 60)
		and n.state = 'succeeded' and n.started_at > 0 order by b.number desc`, project)
	out := map[string][]time.Duration{}
	for _, r := range rows {
		if len(out[r.name]) < 20 {
			out[r.name] = append(out[r.name], time.Duration(r.d)*time.Microsecond)
		}
	}
	return out, err
}

const artifactColumns = `build_id, name, file, sha256, size, node`

func scanArtifact(r scanner) (a delivery.Artifact, err error) {
	err = r.Scan(&a.BuildID, &a.Name, &a.File, &a.SHA256, &a.Size, &a.Node)
	return a, err
}

// Artifacts lists a build's artifacts by name.
func (q queries) Artifacts(ctx context.Context, buildID int64) ([]delivery.Artifact, error) {
	return list(ctx, q.db, scanArtifact, `select `+artifactColumns+` from artifacts where build_id = $1 order by name`, buildID)
}

// SetArtifact keeps an artifact of a job's successful attempt.
func (t *Tx) SetArtifact(ctx context.Context, a delivery.Artifact) error {
	// The same bytes were perhaps made before, and removed: they are here again.
	if err := t.DeleteMeta(ctx, removedMeta+a.SHA256); err != nil {
		return err
	}
	_, err := t.exec(ctx, `insert into artifacts (`+artifactColumns+`) values ($1,$2,$3,$4,$5,$6)
		on conflict (build_id, name) do update set file = excluded.file, sha256 = excluded.sha256, size = excluded.size, node = excluded.node`,
		a.BuildID, a.Name, a.File, a.SHA256, a.Size, a.Node)
	return err
}

// NodeTest is a test case and the node that reported it.
type NodeTest struct {
	Node string
	delivery.TestCase
}

// Tests lists a build's test cases.
func (q queries) Tests(ctx context.Context, buildID int64) ([]NodeTest, error) {
	return list(ctx, q.db, func(r scanner) (c NodeTest, err error) {
		err = r.Scan(&c.Node, &c.Suite, &c.Class, &c.Name, &c.State, &c.Millis, &c.Message)
		return c, err
	}, `select node, suite, class, name, state, millis, message from tests where build_id = $1 order by node, position`, buildID)
}

// SetTests replaces a node's test cases by those of its latest attempt.
func (t *Tx) SetTests(ctx context.Context, buildID int64, node string, cases []delivery.TestCase) error {
	if _, err := t.exec(ctx, `delete from tests where build_id = $1 and node = $2`, buildID, node); err != nil {
		return err
	}
	for i, c := range cases {
		if _, err := t.exec(ctx, `insert into tests (build_id, node, position, suite, class, name, state, millis, message) values ($1,$2,$3,$4,$5,$6,$7,$8,$9)`,
			buildID, node, i, c.Suite, c.Class, c.Name, c.State, c.Millis, c.Message); err != nil {
			return err
		}
	}
	return nil
}
