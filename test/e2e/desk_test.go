package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"llmos/proto/client"
	pb "llmos/proto/llmos/v1"
	"llmos/test/rig"
)

// desk is a person at a cluster: it submits jobs that run until it says so, and looks.
type desk struct {
	t   *testing.T
	ctx context.Context
	c   *rig.Cluster
	cl  *client.Client
	dir string // of the files that end jobs
}

func sit(t *testing.T, agents int, devices string) *desk {
	t.Helper()
	ctx, c := start(t, 1, agents, devices)
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return &desk{t: t, ctx: ctx, c: c, cl: cl, dir: t.TempDir()}
}

// untilTold is a program that runs until the file $END is there, and on a stop signal says
// what it had done and ends at once, as a training does that has just saved itself.
const untilTold = `trap 'echo saved; exit 0' TERM; while [ ! -e "$END" ]; do sleep 0.05; done`

// job is a job of count tasks with gpus devices each that runs until d.end(name).
func (d *desk) job(name string, count, gpus int32) *pb.JobSpec {
	return &pb.JobSpec{Name: name, Kind: pb.JobKind_JOB_KIND_BATCH, Priority: 50, LostAfterMs: 2000, Roles: []*pb.RoleSpec{{
		Name: "worker", Count: count, Command: []string{"sh", "-c", untilTold}, GraceMs: 5000,
		Env:       map[string]string{"END": d.endFile(name)},
		Resources: &pb.Resources{CpuMilli: 10, MemoryBytes: 16 << 20, Gpus: gpus}}}}
}

func (d *desk) endFile(name string) string { return filepath.Join(d.dir, name) }

// end lets the job of a name run to its end.
func (d *desk) end(name string) {
	d.t.Helper()
	if err := os.WriteFile(d.endFile(name), nil, 0o644); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) submit(spec *pb.JobSpec) string {
	d.t.Helper()
	answer, err := d.cl.SubmitJob(d.ctx, &pb.SubmitJobRequest{RequestId: d.t.Name() + spec.Name, Spec: spec})
	if err != nil {
		d.t.Fatalf("submit %s: %v", spec.Name, err)
	}
	return answer.JobId
}

func (d *desk) api() pb.ClusterServiceClient { return pb.NewClusterServiceClient(d.cl) }

func (d *desk) view(id string) *pb.JobView {
	d.t.Helper()
	v, err := d.api().GetJob(d.ctx, &pb.GetJobRequest{JobId: id})
	if err != nil {
		d.t.Fatalf("look at %s: %v", id, err)
	}
	return v
}

// see waits until a job looks as wanted.
func (d *desk) see(id, what string, ok func(v *pb.JobView) bool) *pb.JobView {
	d.t.Helper()
	var last *pb.JobView
	deadline := time.Now().Add(40 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(deadline) {
		if last = d.view(id); ok(last) {
			return last
		}
		<-tick.C
	}
	why, _ := d.api().ExplainJob(d.ctx, &pb.ExplainJobRequest{JobId: id})
	d.t.Fatalf("%s is not %s: %v\nwhy: %v\nevents: %v", id, what, last.GetJob(), why, last.GetEvents())
	return nil
}

func (d *desk) seeRunning(id string) *pb.JobView {
	d.t.Helper()
	return d.see(id, "running", running)
}

func (d *desk) seeDone(id string) *pb.JobView {
	d.t.Helper()
	return d.see(id, "done", func(v *pb.JobView) bool { return v.Job.State == pb.JobState_JOB_STATE_SUCCEEDED })
}

// seeWaiting waits until the scheduler has looked at the job and left it waiting.
func (d *desk) seeWaiting(id string) {
	d.t.Helper()
	d.see(id, "waiting with a reason", func(v *pb.JobView) bool {
		return v.Job.State == pb.JobState_JOB_STATE_PENDING && v.WaitingReason != ""
	})
}

// running says whether every task of the newest attempt runs.
func running(v *pb.JobView) bool {
	return v.Job.State == pb.JobState_JOB_STATE_RUNNING && len(v.Tasks) > 0 &&
		!slices.ContainsFunc(v.Tasks, func(t *pb.Task) bool { return t.State != pb.TaskState_TASK_STATE_RUNNING })
}

func pending(v *pb.JobView) bool { return v.Job.State == pb.JobState_JOB_STATE_PENDING }

// happened says whether the job's diary has an event of a kind with these words.
func happened(v *pb.JobView, kind string, words ...string) bool {
	return slices.ContainsFunc(v.Events, func(e *pb.Event) bool {
		return e.Kind == kind && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(e.Message, w) })
	})
}

func (d *desk) configure(change func(*pb.SchedulerConfig)) {
	d.t.Helper()
	config, err := d.api().GetSchedulerConfig(d.ctx, &pb.GetSchedulerConfigRequest{})
	if err == nil {
		change(config)
		_, err = d.api().SetSchedulerConfig(d.ctx, &pb.SetSchedulerConfigRequest{Config: config})
	}
	if err != nil {
		d.t.Fatalf("change the scheduling policy: %v", err)
	}
}

func gpuQueue(name string, nominal, borrow int64) *pb.Queue {
	return &pb.Queue{Name: name, Weight: 1, Limits: []*pb.QuotaLimit{{Resource: "gpu", Nominal: nominal * 1000, Borrow: borrow, Lend: -1}}}
}
