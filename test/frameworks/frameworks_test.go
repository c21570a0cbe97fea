package frameworks

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "llmos/proto/llmos/v1"
	"llmos/test/rig"
)

// installed names the variable by which make says that the frameworks are there.
const installed = "LLMOS_TEST_FRAMEWORKS"

// example is a job file and what it must reach although a rank is killed in the middle.
type example struct {
	field string
	bound float64 // of the held-out loss
	above float64 // what its loss at the first step exceeds: the bound is learned, not given
}

var examples = []example{
	{"language", 1.9, 3.0},
	{"vision", 0.25, 1.5},
	{"speech", 0.2, 1.8},
	{"recommendation", 0.92, 1.0},
}

const (
	clusterTimeout = 9 * time.Minute
	killAt         = 0.4 // of the steps
	killRank       = 1
)

// TestFields runs the four examples one after the other on three servers and three agents.
func TestFields(t *testing.T) {
	if os.Getenv(installed) == "" {
		t.Skip("make e2e-frameworks installs the frameworks and runs this")
	}
	bin, err := rig.Programs()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), clusterTimeout)
	defer cancel()
	c, err := rig.Start(ctx, rig.Config{Bin: bin, Dir: t.TempDir(), Servers: 3, Agents: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, e := range examples {
		t.Run(e.field, func(t *testing.T) { e.run(ctx, t, c) })
	}
}

// run submits the example, kills a rank by SIGKILL when a checkpoint is there, and holds the job
// to its bound.
func (e example) run(ctx context.Context, t *testing.T, c *rig.Cluster) {
	began := time.Now()
	id := e.submit(ctx, t, c)
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	w := &watched{t: t, c: c, id: id}
	if err := cl.WatchJob(ctx, id, w.see); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %.0f s, rank %d killed at step %d", id, time.Since(began).Seconds(), killRank, w.killedAt)
	job := w.last.GetJob()
	said := e.said(ctx, t, c, id, 2)
	if job.GetState() != pb.JobState_JOB_STATE_SUCCEEDED {
		t.Fatalf("the job ended as %v: %s\n%s", job.GetState(), job.GetReason(), said)
	}
	if w.killedAt == 0 {
		t.Fatal("the job ended before a rank could be killed")
	}
	if job.GetEpoch() != 2 {
		t.Errorf("the job took %d attempts, want 2: all ranks once more", job.GetEpoch())
	}
	if want := fmt.Sprintf("rank %d: ", killRank); !strings.Contains(w.causes(), want) {
		t.Errorf("the cause of the first end does not begin with %q: %s", want, w.causes())
	}
	e.judge(t, w, said)
	first := reported.FindStringSubmatch(e.said(ctx, t, c, id, 1))
	if first == nil {
		t.Fatal("rank 0 reported no first step")
	}
	if loss, err := strconv.ParseFloat(first[1], 64); err != nil || loss < e.above {
		t.Errorf("the loss began at %s, want above %v", first[1], e.above)
	}
	t.Logf("the loss began at %s", first[1])
}

func (e example) submit(ctx context.Context, t *testing.T, c *rig.Cluster) string {
	t.Helper()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.Run(ctx, "run", "-o", "json", filepath.Join(root, "deploy", "jobs", e.field+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		JobID string `json:"job_id"`
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatal(err)
	}
	return answer.JobID
}

// said is the merged log of an attempt.
func (e example) said(ctx context.Context, t *testing.T, c *rig.Cluster, id string, attempt int) string {
	t.Helper()
	cmd := c.Command(ctx, "logs", "--attempt", strconv.Itoa(attempt), id)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

var (
	beginning = regexp.MustCompile(`(?m)^\[(\d+)\] rank (\d+) of (\d+), attempt 2: .* begins at step (\d+)$`)
	reported  = regexp.MustCompile(`(?m)^\[0\] @llmos step=1 steps=\d+ loss=([0-9.]+)$`)
	ending    = regexp.MustCompile(`(?m)^\[\d+\] held-out loss ([0-9.]+) after (\d+) steps`)
)

// judge reads what the ranks of the second attempt said.
func (e example) judge(t *testing.T, w *watched, said string) {
	t.Helper()
	begun := beginning.FindAllStringSubmatch(said, -1)
	if len(begun) != len(w.last.GetTasks()) {
		t.Fatalf("%d of %d ranks said where they begin:\n%s", len(begun), len(w.last.GetTasks()), said)
	}
	for _, m := range begun {
		if m[1] != m[2] {
			t.Errorf("rank %s wrote into the log of rank %s", m[2], m[1])
		}
		if at, _ := strconv.Atoi(m[4]); at == 0 || at != atoi(begun[0][4]) {
			t.Errorf("rank %s did not go on from the checkpoint of all: %s", m[2], m[0])
		}
	}
	end := ending.FindStringSubmatch(said)
	if end == nil {
		t.Fatalf("no rank tells the final loss:\n%s", said)
	}
	loss, err := strconv.ParseFloat(end[1], 64)
	if err != nil || loss > e.bound {
		t.Errorf("the held-out loss is %s, want at most %v", end[1], e.bound)
	}
	t.Logf("went on from step %s to %s; held-out loss %s, at most %v", begun[0][4], end[2], end[1], e.bound)
}

func atoi(s string) int { n, _ := strconv.Atoi(s); return n }

// watched follows one job.
type watched struct {
	t        *testing.T
	c        *rig.Cluster
	id       string
	last     *pb.JobView
	killedAt int64
}

func (w *watched) see(v *pb.JobView) error {
	w.last = v
	if v.GetJob().GetEpoch() != 1 {
		return nil
	}
	for _, p := range v.GetProgress() {
		if p.Rank != 0 || p.Step == 0 || p.Steps == 0 {
			continue
		}
		if w.killedAt == 0 && float64(p.Step) >= killAt*float64(p.Steps) && w.saved() {
			w.killedAt = p.Step
			w.kill(v.GetTasks()[killRank].GetId())
		}
	}
	return nil
}

// saved reports whether a checkpoint is finished.
func (w *watched) saved() bool {
	found, err := filepath.Glob(filepath.Join(w.c.SharedDir(), w.id, "checkpoints", "step-*"))
	return err == nil && len(found) > 0
}

// kill ends the training program of a task by SIGKILL, and nothing else of it.
func (w *watched) kill(task string) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		w.t.Error(err)
		return
	}
	killed := 0
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		env, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		args, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		program, _, _ := strings.Cut(string(args), "\x00")
		if strings.Contains("\x00"+string(env), "\x00LLMOS_TASK_ID="+task+"\x00") && strings.HasPrefix(filepath.Base(program), "python") {
			if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
				killed++
			}
		}
	}
	if killed == 0 {
		w.t.Errorf("no Python of task %s runs", task)
	}
}

// causes are the events of the job that tell of an end.
func (w *watched) causes() string {
	var out []string
	for _, e := range w.last.GetEvents() {
		out = append(out, e.Message)
	}
	return strings.Join(out, "\n")
}
