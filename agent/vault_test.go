package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"llmos/agent/checkpoint"
	"llmos/agent/exec"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// fromOthers is an openSource that reads from the vaults of the test.
func (r *rig) fromOthers(ctx context.Context, from *pb.CheckpointSource, d checkpoint.Digest, offset int64) (io.ReadCloser, error) {
	v := r.others[from.GetNodeId()]
	if v == nil {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "node %s does not answer", from.GetNodeId())
	}
	var b bytes.Buffer
	err := v.store.Send(ctx, d, offset, &b)
	if errors.Is(err, checkpoint.ErrAbsent) || errors.Is(err, checkpoint.ErrBroken) {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "no good copy: %w", err)
	}
	return io.NopCloser(&b), err
}

// aVault is a vault of another node, with a checkpoint of a key in it.
func aVault(t *testing.T, key checkpoint.Key, content string) (*vault, *pb.Checkpoint) {
	t.Helper()
	v, err := newVault(t.TempDir(), "n-other", newOutbox(), nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	v.store.Reserve = 0
	return v, saveIn(t, v, key, content)
}

func saveIn(t *testing.T, v *vault, key checkpoint.Key, content string) *pb.Checkpoint {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "s.pt"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	ref, err := v.store.Take(context.Background(), checkpoint.Source{Root: root, Path: "s.pt", Owner: -1}, key, 1)
	if err != nil {
		t.Fatal(err)
	}
	return recordOf(ref)
}

func sources(ids ...string) (out []*pb.CheckpointSource) {
	for _, id := range ids {
		out = append(out, &pb.CheckpointSource{NodeId: id})
	}
	return out
}

// truncate cuts all content of a checkpoint in a store short.
func truncate(t *testing.T, v *vault, dir string, c *pb.Checkpoint) {
	t.Helper()
	d, _ := checkpoint.DigestOf(c.ManifestSha256)
	files, err := filepath.Glob(filepath.Join(dir, "objects", d.String(), "[0-9]*"))
	if err != nil || len(files) == 0 || !v.store.Has(d) {
		t.Fatalf("no content of %v: %v", c, err)
	}
	for _, f := range files {
		if err := os.Truncate(f, 1); err != nil {
			t.Fatal(err)
		}
	}
}

var oneKey = checkpoint.Key{Job: "j-1", Epoch: 1, Step: 5}

// said gives what the outbox tells next of checkpoints, and acknowledges it when it is to.
func (r *rig) said(ack bool) (out []*pb.CheckpointReport) {
	for m := r.outbox.take(); m != nil; m = r.outbox.take() {
		out = append(out, m.GetCheckpoints()...)
		if ack {
			r.outbox.acknowledge(m.GetSeq())
		}
	}
	return out
}

// TestHoldings follows what the servers want held: copies are fetched and reported, what is recorded
// and not wanted goes, what is not recorded yet stays.
func TestHoldings(t *testing.T) {
	r := newRig(t, t.TempDir())
	v := r.vault
	other, far := aVault(t, checkpoint.Key{Job: "far-1", Epoch: 2, Step: 9}, "far")
	r.others["n-other"] = other
	mine := saveIn(t, v, oneKey, "mine")
	v.report(checkpoint.Ref{Key: oneKey, Name: "s.pt", Digest: checkpoint.Digest(mine.ManifestSha256)})
	v.hold(&pb.Holdings{Holdings: []*pb.Holding{{Checkpoint: far, Sources: sources("n-gone", "n-other")}}})
	if next := v.fulfil(context.Background()); !next.IsZero() {
		t.Fatalf("it is to be tried again at %s", next)
	}
	if got := r.said(true); len(got) != 2 || got[0].Checkpoint.JobId != "j-1" || got[1].Checkpoint.JobId != "far-1" {
		t.Fatalf("reported: %v", got)
	}
	if len(v.store.Refs()) != 2 {
		t.Fatalf("held: %v", v.store.Refs())
	}
	held := &pb.Holding{Checkpoint: far, Held: true, Readers: []string{"n-reader"}}
	release := v.pin(checkpoint.Digest(mine.ManifestSha256))
	v.hold(&pb.Holdings{Holdings: []*pb.Holding{held}})
	if len(v.store.Refs()) != 2 {
		t.Errorf("what is being staged went: %v", v.store.Refs())
	}
	release()
	v.hold(&pb.Holdings{Holdings: []*pb.Holding{held}})
	if refs := v.store.Refs(); len(refs) != 1 || refs[0].Job != "far-1" {
		t.Errorf("held: %v", refs)
	}
	d := checkpoint.Digest(far.ManifestSha256)
	if !v.mayRead(d, "n-reader") || v.mayRead(d, "n-other") || v.mayRead(checkpoint.Digest(mine.ManifestSha256), "n-reader") {
		t.Error("the wrong nodes may read")
	}
	// What the servers believe to be here and is not is told, and fetched if it can be.
	v.store.Drop(checkpoint.Key{Job: "far-1", Epoch: 2, Step: 9})
	v.fulfil(context.Background())
	if got := r.said(true); len(got) != 1 || !got[0].Lost {
		t.Errorf("reported: %v", got)
	}
	v.hold(&pb.Holdings{Holdings: []*pb.Holding{{Checkpoint: far, Sources: sources("n-gone")}}})
	if next := v.fulfil(context.Background()); next.IsZero() || v.fulfil(context.Background()) != next {
		t.Errorf("tried again at %s", next)
	}
}

// savingTask is a task that saves itself below its private working directory.
func savingTask(id, script string) *pb.Assignment {
	a := shellTask(id, script)
	a.Checkpoint = &pb.CheckpointSpec{Path: "ckpt"}
	return a
}

const saveOne = `echo x > "$LLMOS_CHECKPOINT_DIR/.s" && sleep 0.02 && mv "$LLMOS_CHECKPOINT_DIR/.s" ckpt/step-$n; `

// TestEndWaitsForTheRecord: what a task saved last is reported, and its end only when that is recorded.
func TestEndWaitsForTheRecord(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.desire(savingTask("j-1.e1.r0", `trap 'n=7; `+saveOne+`exit 0' TERM; touch ready; while :; do sleep 0.02; done`))
	r.await("j-1.e1.r0", pb.TaskState_TASK_STATE_RUNNING)
	ready := filepath.Join(r.site.dir("j-1.e1.r0"), "work", "ready")
	eventually(t, "the task to be ready", func() bool { _, err := os.Stat(ready); return err == nil })
	stopped := savingTask("j-1.e1.r0", "")
	stopped.Task.Desired = pb.TaskDesired_TASK_DESIRED_STOP
	r.desire(stopped)
	var seq uint64
	var saved *pb.CheckpointReport
	eventually(t, "the report of what was saved", func() bool {
		if m := r.outbox.take(); m != nil {
			for _, report := range m.GetReports() {
				if report.GetState() == pb.TaskState_TASK_STATE_STOPPED {
					t.Fatal("the end came before the checkpoint was recorded")
				}
			}
			if seq = m.GetSeq(); len(m.GetCheckpoints()) > 0 {
				saved = m.GetCheckpoints()[0]
			}
		}
		return saved != nil
	})
	if c := saved.Checkpoint; c.Step != 7 || c.Name != "step-7" || c.JobId != "j-1" || c.Epoch != 1 || saved.Lost || c.Fault != "" {
		t.Errorf("saved: %v", saved)
	}
	r.outbox.acknowledge(seq)
	r.await("j-1.e1.r0", pb.TaskState_TASK_STATE_STOPPED)
}

// TestSavedWhileAway: what a task saved and told while no agent ran is found by the next one.
func TestSavedWhileAway(t *testing.T) {
	dir := t.TempDir()
	gate := filepath.Join(dir, "gate")
	r := newRig(t, dir)
	task := savingTask("j-1.e1.r0", `n=1; `+saveOne+`while [ ! -e `+gate+` ]; do sleep 0.02; done; n=2; `+saveOne+`ln -s /etc/passwd ckpt/step-3`)
	r.desire(task)
	r.await("j-1.e1.r0", pb.TaskState_TASK_STATE_RUNNING)
	eventually(t, "step 1 to be taken", func() bool { return len(r.vault.store.Refs()) == 1 })
	r.close()
	if err := os.WriteFile(gate, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the task to end", func() bool { e, err := exec.ReadExit(r.site.dir("j-1.e1.r0")); return err == nil && e != nil })
	r = newRig(t, dir)
	r.desire(task)
	steps, refused := map[int64]bool{}, ""
	eventually(t, "all to be reported", func() bool {
		for _, report := range r.said(true) {
			if report.Checkpoint.Fault != "" {
				refused = report.Checkpoint.Name + ": " + report.Checkpoint.Fault
				continue
			}
			steps[report.Checkpoint.Step] = true
		}
		return steps[1] && steps[2] && refused != ""
	})
	if len(steps) != 2 || refused != "step-3: it is a symbolic link out of the working directory" {
		t.Errorf("saved %v, refused %s", steps, refused)
	}
}

// TestSharedWorkdir: of tasks in one working directory the first looks, what lies there from before is
// not taken, and what another announces is.
func TestSharedWorkdir(t *testing.T) {
	shared := t.TempDir()
	for _, name := range []string{"ckpt/step-1", "elsewhere/two.pt"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(shared, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(shared, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := newRig(t, t.TempDir())
	script := `[ $RANK = 0 ] && { echo x > ckpt/.s; sleep 0.02; mv ckpt/.s ckpt/step-5; }; [ $RANK = 1 ] && { echo "@llmos checkpoint step=6 path=elsewhere/two.pt"; echo "@llmos checkpoint step=7 path=/etc/passwd"; }; true`
	var all []*pb.Assignment
	for _, id := range []string{"j-1.e1.r0", "j-1.e1.r1"} {
		a := savingTask(id, script)
		a.Role.Workdir = shared
		all = append(all, a)
	}
	r.desire(all...)
	got := map[string]bool{}
	eventually(t, "three words", func() bool {
		for _, report := range r.said(true) {
			c := report.Checkpoint
			got[keyOf(c).String()+" "+c.Name+" "+c.Fault] = true
		}
		return len(got) == 3
	})
	for _, want := range []string{"step 5 of rank 0 of j-1 step-5 ", "step 6 of rank 1 of j-1 two.pt ",
		"step 0 of rank 1 of j-1 passwd the task called it finished, and /etc/passwd is not below the working directory"} {
		if !got[want] {
			t.Errorf("no %q in %v", want, got)
		}
	}
}

// resumes is a task that shows what it goes on from.
func resumes(c *pb.Checkpoint, from ...string) *pb.Assignment {
	a := shellTask("j-1.e2.r0", `test "$(cat "$LLMOS_RESUME")" = weights && test "$LLMOS_RESUME_STEP.$LLMOS_RESUME_RANK" = 5.0`)
	a.Resume = &pb.Holding{Checkpoint: c, Sources: sources(from...)}
	return a
}

// TestResume stages from another node, from the next one when a copy is broken, and from the node's
// own store; when no copy is good the task never starts, and says so.
func TestResume(t *testing.T) {
	good, c := aVault(t, oneKey, "weights")
	badDir := t.TempDir()
	bad, err := newVault(badDir, "n-bad", newOutbox(), nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	bad.store.Reserve = 0
	saveIn(t, bad, oneKey, "weights")
	truncate(t, bad, badDir, c)
	t.Run("next source", func(t *testing.T) {
		r := newRig(t, t.TempDir())
		r.others["n-bad"], r.others["n-good"] = bad, good
		r.desire(resumes(c, "n-bad", "n-good"))
		r.await("j-1.e2.r0", pb.TaskState_TASK_STATE_SUCCEEDED)
		if _, held := r.vault.store.Ref(oneKey); !held {
			t.Error("the node does not hold what it has fetched")
		}
	})
	t.Run("own copy broken", func(t *testing.T) {
		dir := t.TempDir()
		r := newRig(t, dir)
		r.others["n-good"] = good
		saveIn(t, r.vault, oneKey, "weights")
		truncate(t, r.vault, filepath.Join(dir, checkpointsFolder), c)
		r.desire(resumes(c, "n-good"))
		r.await("j-1.e2.r0", pb.TaskState_TASK_STATE_SUCCEEDED)
	})
	t.Run("no good copy", func(t *testing.T) {
		r := newRig(t, t.TempDir())
		r.others["n-bad"] = bad
		r.desire(resumes(c, "n-bad"))
		report := r.await("j-1.e2.r0", pb.TaskState_TASK_STATE_STOPPED)
		if !report.ResumeFailed || !strings.Contains(report.Reason, "its checkpoint cannot be had: step 5 of rank 0") {
			t.Errorf("reported: %v", report)
		}
		if entries, err := os.ReadDir(filepath.Join(r.site.dir("j-1.e2.r0"), resumeFolder)); err == nil {
			t.Errorf("left behind: %v", entries)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		r := newRig(t, t.TempDir())
		r.desire(resumes(&pb.Checkpoint{JobId: "j-1", Step: 5}))
		if report := r.await("j-1.e2.r0", pb.TaskState_TASK_STATE_STOPPED); !report.ResumeFailed {
			t.Errorf("reported: %v", report)
		}
	})
	t.Run("stopped meanwhile", func(t *testing.T) {
		r := newRig(t, t.TempDir())
		fetching := make(chan struct{})
		r.vault.open = func(ctx context.Context, _ *pb.CheckpointSource, _ checkpoint.Digest, _ int64) (io.ReadCloser, error) {
			close(fetching)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		a := resumes(c, "n-slow")
		r.desire(a)
		<-fetching
		stop := resumes(c, "n-slow")
		stop.Task.Desired = pb.TaskDesired_TASK_DESIRED_STOP
		r.desire(stop)
		if report := r.await("j-1.e2.r0", pb.TaskState_TASK_STATE_STOPPED); report.ResumeFailed || report.Reason != "stopped before it was started" {
			t.Errorf("reported: %v", report)
		}
	})
}

// readStream takes the chunks of a ReadCheckpoint.
type readStream struct {
	grpc.ServerStreamingServer[pb.CheckpointChunk]
	bytes.Buffer
}

func (s *readStream) Send(c *pb.CheckpointChunk) error {
	_, err := s.Write(c.GetData())
	return err
}

func (s *readStream) Context() context.Context { return context.Background() }

// TestReadCheckpoint: only an agent that the leader has named may read, and a broken copy is told of.
func TestReadCheckpoint(t *testing.T) {
	dir := t.TempDir()
	v, err := newVault(dir, "n-1", newOutbox(), nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	v.store.Reserve = 0
	c := saveIn(t, v, oneKey, strings.Repeat("w", 3*carryBytes))
	v.hold(&pb.Holdings{Holdings: []*pb.Holding{{Checkpoint: c, Held: true, Readers: []string{"n-reader"}}}})
	caller := transport.Identity{ClusterID: "c", Role: pb.MemberRole_MEMBER_ROLE_AGENT, MemberID: "n-reader"}
	s := newAgentService(site{nodeName: "n1"}, newVisits(time.Now), v)
	s.peer = func(grpc.ServerStream) (transport.Identity, bool) { return caller, true }
	read := func() (*readStream, error) {
		out := &readStream{}
		return out, s.ReadCheckpoint(&pb.ReadCheckpointRequest{ManifestSha256: c.ManifestSha256}, out)
	}
	far, err := checkpoint.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	far.Reserve = 0
	d := checkpoint.Digest(c.ManifestSha256)
	err = far.Fetch(context.Background(), d, func(context.Context, int64) (io.ReadCloser, error) {
		out, err := read()
		return io.NopCloser(&out.Buffer), err
	})
	if err != nil || !far.Has(d) {
		t.Fatal(err)
	}
	for _, other := range []transport.Identity{{Role: pb.MemberRole_MEMBER_ROLE_AGENT, MemberID: "n-other"},
		{Role: pb.MemberRole_MEMBER_ROLE_USER, MemberID: "n-reader"}, {Role: pb.MemberRole_MEMBER_ROLE_SERVER, MemberID: "n-reader"}} {
		right := caller
		caller = other
		if out, err := read(); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_DENIED || out.Len() > 0 {
			t.Errorf("%v read %d bytes: %v", other, out.Len(), err)
		}
		caller = right
	}
	truncate(t, v, dir, c)
	if _, err := read(); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_NOT_FOUND {
		t.Errorf("a truncated copy: %v", err)
	}
	m := v.outbox.take()
	if reports := m.GetCheckpoints(); len(reports) != 1 || !reports[0].Lost || v.store.Has(d) {
		t.Errorf("told: %v", m)
	}
	if _, err := read(); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_NOT_FOUND {
		t.Errorf("a copy that is gone: %v", err)
	}
}

// TestHopeless tells answers that stay from those that may change.
func TestHopeless(t *testing.T) {
	gone := fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "gone")
	away := fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "away")
	for _, c := range []struct {
		err  error
		want bool
	}{
		{errors.Join(gone, checkpoint.ErrBroken), true}, {errors.Join(gone, away), false}, {errNoSource, true}, {away, false},
		{errors.Join(nil, errors.Join(gone)), true}, {errors.Join(checkpoint.ErrBroken, errNoSource), true}, {context.DeadlineExceeded, false},
	} {
		if got := hopeless(c.err); got != c.want {
			t.Errorf("%v is hopeless: %v", c.err, got)
		}
	}
}
