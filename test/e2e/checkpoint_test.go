package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "llmos/proto/llmos/v1"
	"llmos/test/rig"
)

// trains is a program that counts steps as a training does: it goes on from its checkpoint, saves
// itself ten steps further each time it is told to, and once more when it is asked to stop.
const trains = `n=0; [ -n "$LLMOS_RESUME" ] && n=$(cat "$LLMOS_RESUME/n")
echo "rank $RANK began at $n, resumed from ${LLMOS_RESUME_STEP:-nothing}"
save() { mkdir ckpt/.new; echo $1 > ckpt/.new/n; head -c 100000 /dev/urandom > ckpt/.new/weights; mv ckpt/.new ckpt/step-$1; n=$1; }
trap 'save $((n+1)); exit 0' TERM
while [ ! -e "$END" ]; do [ -e "$END.save-$((n+10))" ] && save $((n+10)); sleep 0.05; done`

// training is a job of count ranks that train.
func (d *desk) training(name string, count, gpus int32) *pb.JobSpec {
	spec := d.job(name, count, gpus)
	spec.Roles[0].Command = []string{"sh", "-c", trains}
	spec.Checkpoint = &pb.CheckpointSpec{Path: "ckpt", Keep: 3}
	return spec
}

// save lets the ranks of a training save a step, and waits until it is good and every part has copies
// on so many nodes.
func (d *desk) save(name, id string, step int64, copies int) *pb.CheckpointView {
	d.t.Helper()
	if err := os.WriteFile(fmt.Sprintf("%s.save-%d", d.endFile(name), step), nil, 0o644); err != nil {
		d.t.Fatal(err)
	}
	return d.seeSaved(id, fmt.Sprintf("step %d with %d copies", step, copies), func(v *pb.CheckpointView) bool {
		return v.Step == step && v.State == pb.CheckpointState_CHECKPOINT_STATE_GOOD &&
			!slices.ContainsFunc(v.Ranks, func(c *pb.Checkpoint) bool { return len(c.NodeIds) < copies })
	})
}

// seeSaved waits until a job has a checkpoint as wanted.
func (d *desk) seeSaved(id, what string, ok func(*pb.CheckpointView) bool) *pb.CheckpointView {
	d.t.Helper()
	var list *pb.ListCheckpointsResponse
	deadline := time.Now().Add(40 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(deadline) {
		var err error
		if list, err = d.api().ListCheckpoints(d.ctx, &pb.ListCheckpointsRequest{JobId: id}); err != nil {
			d.t.Fatal(err)
		}
		if i := slices.IndexFunc(list.Checkpoints, ok); i >= 0 {
			return list.Checkpoints[i]
		}
		<-tick.C
	}
	d.t.Fatalf("%s has no %s: %v\nevents: %v", id, what, list, d.view(id).Events)
	return nil
}

// began waits until the log of a rank says where its newest attempt began.
func (d *desk) began(id string, rank, at int) {
	d.t.Helper()
	want := fmt.Sprintf("rank %d began at %d, resumed from %d\n", rank, at, at)
	if at == 0 {
		want = fmt.Sprintf("rank %d began at 0, resumed from nothing\n", rank)
	}
	last := said{}
	waitFor(d.t, want, func() bool {
		last = llmos(d.t, d.c, "logs", "--rank", fmt.Sprint(rank), id)
		return strings.Contains(last.out, want)
	})
}

func (d *desk) runsAgain(id string, epoch uint64) *pb.JobView {
	d.t.Helper()
	return d.see(id, fmt.Sprintf("running in attempt %d", epoch), func(v *pb.JobView) bool { return running(v) && v.Job.Epoch == epoch })
}

// TestResumeElsewhere: a host is lost for good, and the gang goes on from the copy that another node
// holds; another job starts from what it saved.
func TestResumeElsewhere(t *testing.T) {
	d := sit(t, 3, "1xH100-80GB")
	id := d.submit(d.training("train", 2, 1))
	v := d.seeRunning(id)
	d.began(id, 0, 0)
	d.save("train", id, 10, 2)
	agentOf(d.c, v.Tasks[1].NodeId).KillHost()
	v = d.runsAgain(id, 2)
	d.began(id, 0, 10)
	d.began(id, 1, 10)
	if r := v.Attempt.GetResume(); r.GetEpoch() != 1 || r.GetStep() != 10 || !happened(v, "checkpoint.saved") {
		t.Errorf("attempt 2 goes on from %v; events %v", r, v.Events)
	}
	d.save("train", id, 20, 2)
	s := llmos(t, d.c, "checkpoints", "train")
	lines := strings.Split(strings.TrimSpace(s.out), "\n")
	if newest := strings.Join(strings.Fields(lines[1]), " "); s.code != 0 || len(lines) < 3 || !strings.HasPrefix(newest, "20 2 ") || !strings.Contains(newest, " 2/2 good ") {
		t.Errorf("llmos checkpoints: %d %s\n%s", s.code, s.err, s.out)
	}
	d.end("train")
	d.seeDone(id)
	if s := llmos(t, d.c, "run", "--resume", "train@11", "--name", "none", "--", "true"); s.code != 3 || !strings.Contains(s.err, "job train-1 has no good checkpoint of step 11") {
		t.Errorf("a step that was never saved: %d %s", s.code, s.err)
	}
	s = llmos(t, d.c, "run", "--wait", "--resume", "train@10", "--name", "more", "--", "sh", "-c", `cat "$LLMOS_RESUME/n"; test $(stat -c %s "$LLMOS_RESUME/weights") = 100000`)
	if s.code != 0 {
		t.Errorf("a job from another's checkpoint: %d %s", s.code, s.err)
	}
	if s := llmos(t, d.c, "logs", "more"); strings.TrimSpace(s.out) != "10" {
		t.Errorf("it found %q", s.out)
	}
}

// storedContent gives the files of a checkpoint in the store of an agent.
func storedContent(t *testing.T, a *rig.Process, c *pb.Checkpoint) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(a.DataDir, "checkpoints", "objects", fmt.Sprintf("%x", c.ManifestSha256), "[0-9]*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("node %s has no content of step %d: %v", a.Name, c.Step, err)
	}
	return files
}

// TestTruncatedCheckpoint: the only copy that is left of the newest step is truncated. It is refused
// by its digest, and the attempt after goes on from the step before.
func TestTruncatedCheckpoint(t *testing.T) {
	d := sit(t, 2, "1xH100-80GB")
	id := d.submit(d.training("train", 1, 1))
	v := d.seeRunning(id)
	d.save("train", id, 10, 2)
	newest := d.save("train", id, 20, 2)
	victim := agentOf(d.c, v.Tasks[0].NodeId)
	for _, a := range d.c.Agents {
		if a != victim {
			files := storedContent(t, a, newest.Ranks[0])
			if err := os.Truncate(files[len(files)-1], 7); err != nil {
				t.Fatal(err)
			}
		}
	}
	victim.KillHost()
	v = d.runsAgain(id, 3)
	d.began(id, 0, 10)
	if !happened(v, "checkpoint.broken", "step 20", "7 of 100000 bytes") || v.Job.RetriesLeft != v.Job.Spec.Retries {
		t.Errorf("events %v", v.Events)
	}
	// The third attempt may have saved its own step 20 by now, which takes the broken one's place.
	list, err := d.api().ListCheckpoints(d.ctx, &pb.ListCheckpointsRequest{JobId: id})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list.Checkpoints {
		if c.Step == 20 && c.Epoch == newest.Epoch && c.State != pb.CheckpointState_CHECKPOINT_STATE_BROKEN {
			t.Errorf("the truncated checkpoint is %s", c.State)
		}
	}
}

// TestCheckpointLinkOut: a checkpoint with a symbolic link out of the working directory is refused in
// words, and nothing of it is kept; the next good one is.
func TestCheckpointLinkOut(t *testing.T) {
	d := sit(t, 1, "1xH100-80GB")
	spec := d.training("train", 1, 1)
	spec.Roles[0].Command = []string{"sh", "-c", `mkdir ckpt/.a && ln -s /etc/passwd ckpt/.a/model && mv ckpt/.a ckpt/step-1
` + trains}
	id := d.submit(spec)
	d.see(id, "told of the link", func(v *pb.JobView) bool {
		return happened(v, "checkpoint.refused", "checkpoint step-1 of rank 0 was refused: step-1/model is a symbolic link out of the working directory")
	})
	d.save("train", id, 10, 1)
	list, err := d.api().ListCheckpoints(d.ctx, &pb.ListCheckpointsRequest{JobId: id})
	if err != nil || len(list.Checkpoints) != 1 {
		t.Errorf("%v %v", list, err)
	}
	objects, err := os.ReadDir(filepath.Join(d.c.Agents[0].DataDir, "checkpoints", "objects"))
	if err != nil || len(objects) != 1 {
		t.Errorf("the store holds %v %v", objects, err)
	}
}

// TestPreemptionSaves: a job that is asked to make room saves itself, and goes on from there.
func TestPreemptionSaves(t *testing.T) {
	d := sit(t, 2, "1xH100-80GB")
	d.configure(func(c *pb.SchedulerConfig) { c.MinRunMs = 1 })
	low := d.training("low", 2, 1)
	low.Priority = 25
	lowID := d.submit(low)
	d.seeRunning(lowID)
	d.began(lowID, 0, 0)
	d.began(lowID, 1, 0)
	urgent := d.submit(d.job("urgent", 1, 1))
	d.seeRunning(urgent)
	v := d.see(lowID, "waiting again", pending)
	if v.Job.SavedStep != 1 || v.Job.Preemptions != 1 || len(v.Job.SavingRanks) != 2 {
		t.Errorf("the preempted job: %v", v.Job)
	}
	d.end("urgent")
	d.seeDone(urgent)
	d.runsAgain(lowID, 2)
	d.began(lowID, 0, 1)
	d.began(lowID, 1, 1)
}

// TestToldCheckpoint: what a task announces is taken, wherever it lies below its working directory.
func TestToldCheckpoint(t *testing.T) {
	d := sit(t, 1, "1xH100-80GB")
	spec := d.job("train", 1, 1)
	spec.CheckpointEveryMs = 60_000
	spec.Roles[0].Command = []string{"sh", "-c", `echo weights > final.bin; echo "@llmos checkpoint step=1200 path=$PWD/final.bin"; ` + untilTold}
	id := d.submit(spec)
	v := d.seeSaved(id, "step 1200", func(v *pb.CheckpointView) bool { return v.Step == 1200 })
	if v.State != pb.CheckpointState_CHECKPOINT_STATE_GOOD || v.Ranks[0].Name != "final.bin" || v.SizeBytes != 8 {
		t.Errorf("%v", v)
	}
}
