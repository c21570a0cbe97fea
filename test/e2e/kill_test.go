package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	pb "llmos/proto/llmos/v1"
	"llmos/test/rig"
)

const trainSteps = 160

func trainArgs(root string) []string {
	var corpus []string
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "proto", "deploy"} {
		corpus = append(corpus, filepath.Join(root, name))
	}
	return []string{"-steps", fmt.Sprint(trainSteps), "-batch", "512", "-corpus", strings.Join(corpus, ","), "-checkpoint-every", "10", "-sample", "0"}
}

// result is what charlm writes at its end.
type result struct {
	Loss        float64 `json:"held_out_loss"` // a function of the final parameters alone
	Steps       int     `json:"steps"`
	ResumedFrom int     `json:"resumed_from"`
	Epoch       uint64  `json:"epoch"`
}

func readResult(path string) (result, error) {
	var r result
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	return r, err
}

// reference is the loss of the same training in one process, without llmos.
var reference = sync.OnceValues(func() (float64, error) {
	bin, err := rig.Programs()
	if err != nil {
		return 0, err
	}
	root, err := rig.Root()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "llmos-reference-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command(filepath.Join(bin, "charlm"), append(trainArgs(root), "-checkpoint", dir)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("train without llmos: %w: %s", err, out)
	}
	r, err := readResult(filepath.Join(dir, "result.json"))
	return r.Loss, err
})

// TestTrainingSurvives kills what can be killed in the middle of a training of four ranks
// and holds the job to the loss of an undisturbed run.
func TestTrainingSurvives(t *testing.T) {
	want, err := reference()
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name    string
		restart bool // the gang starts again with a higher epoch, from its checkpoint
		brk     func(ctx context.Context, c *rig.Cluster, victim *rig.Process) error
	}{
		{"leader killed", false, func(ctx context.Context, c *rig.Cluster, _ *rig.Process) error {
			p, err := c.Leader(ctx)
			if err == nil {
				p.Kill()
			}
			return err
		}},
		{"every server killed and started", false, func(_ context.Context, c *rig.Cluster, _ *rig.Process) error {
			for _, s := range c.Servers {
				s.Kill()
			}
			for _, s := range c.Servers {
				if err := s.Start(); err != nil {
					return err
				}
			}
			return nil
		}},
		{"agent killed and started", false, func(_ context.Context, _ *rig.Cluster, victim *rig.Process) error {
			victim.Kill()
			return victim.Start()
		}},
		{"agent killed for good", true, func(_ context.Context, _ *rig.Cluster, victim *rig.Process) error {
			victim.Kill()
			return nil
		}},
		{"host lost", true, func(_ context.Context, _ *rig.Cluster, victim *rig.Process) error {
			victim.KillHost()
			return nil
		}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			ctx, c := start(t, 3, 3, "2xH100-80GB")
			at := 0.1 + 0.5*rand.Float64() // share of the steps: any time is as good as another
			t.Logf("breaking at %.2f of the steps", at)
			view := train(ctx, t, c, at, tc.brk)
			if view.Job.State != pb.JobState_JOB_STATE_SUCCEEDED {
				t.Fatalf("the job ended as %v: %s", view.Job.State, view.Job.Reason)
			}
			got, err := readResult(filepath.Join(c.SharedDir(), view.Job.Id, "result.json"))
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(got.Loss-want) > 1e-4*want {
				t.Errorf("loss %v, undisturbed %v", got.Loss, want)
			}
			if restarted := view.Job.Epoch > 1; restarted != tc.restart {
				t.Errorf("epoch %d, restart wanted: %v", view.Job.Epoch, tc.restart)
			}
			if tc.restart && got.ResumedFrom == 0 {
				t.Error("the restarted gang did not resume from its checkpoint")
			}
		})
	}
}

// train submits the job, breaks something at the wanted step, and gives the last view.
func train(ctx context.Context, t *testing.T, c *rig.Cluster, at float64, brk func(context.Context, *rig.Cluster, *rig.Process) error) *pb.JobView {
	t.Helper()
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := cl.SubmitJob(ctx, &pb.SubmitJobRequest{RequestId: t.Name(), Spec: &pb.JobSpec{Name: "train", Kind: pb.JobKind_JOB_KIND_BATCH,
		Priority: 50, LostAfterMs: 3000, Roles: []*pb.RoleSpec{{Name: "worker", Count: 4,
			Command: append([]string{filepath.Join(c.Bin, "charlm")}, trainArgs(root)...), Workdir: root,
			Resources: &pb.Resources{CpuMilli: 100, MemoryBytes: 64 << 20, Gpus: 1}}}}})
	if err != nil {
		t.Fatal(err)
	}
	var last *pb.JobView
	broken := false
	err = cl.WatchJob(ctx, answer.JobId, func(v *pb.JobView) error {
		last = v
		for _, p := range v.Progress {
			if broken || p.Rank != 0 || float64(p.Step) < at*trainSteps {
				continue
			}
			broken = true
			return brk(ctx, c, agentOf(c, v.Tasks[1].NodeId))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !broken {
		t.Fatal("the job ended before anything was broken")
	}
	return last
}

// agentOf is the agent process of a node.
func agentOf(c *rig.Cluster, nodeID string) *rig.Process {
	for _, a := range c.Agents {
		b, err := os.ReadFile(filepath.Join(a.DataDir, "identity.json"))
		if err == nil && strings.Contains(string(b), nodeID) {
			return a
		}
	}
	return nil
}

// TestTasksOutliveEverything: with agent and servers dead a task runs on, and is adopted.
func TestTasksOutliveEverything(t *testing.T) {
	ctx, c := start(t, 1, 1, "")
	if s := llmos(t, c, "run", "--name", "steady", "--", "sh", "-c", "sleep 4; echo done; exit 7"); s.code != 0 {
		t.Fatal(s.err)
	}
	waitFor(t, "the task to run", func() bool { return len(c.TaskProcesses()) > 0 })
	c.Agents[0].Kill()
	c.Servers[0].Kill()
	if len(c.TaskProcesses()) == 0 {
		t.Fatal("the task died with its agent")
	}
	for _, p := range []*rig.Process{c.Servers[0], c.Agents[0]} {
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the job's own exit code", func() bool {
		s := llmos(t, c, "ps", "-a", "-o", "json")
		return strings.Contains(s.out, "JOB_STATE_FAILED")
	})
	if s := llmos(t, c, "logs", "steady"); !strings.Contains(s.out, "done") {
		t.Errorf("the log of the adopted task is %q %s", s.out, s.err)
	}
}

// waitFor polls a condition with a deadline.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(deadline) {
		if ok() {
			return
		}
		<-tick.C
	}
	t.Fatalf("waited a minute for %s", what)
}
