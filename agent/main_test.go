package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"llmos/agent/exec"
	pb "llmos/proto/llmos/v1"
)

// TestMain lets the test binary be its own shim, as the llmos binary is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "shim" {
		os.Exit(exec.ShimMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}

const patience = 20 * time.Second

var quiet = slog.New(slog.DiscardHandler)

// rig is a supervisor with a journal and real shims, and no session.
type rig struct {
	t          *testing.T
	dir        string
	site       site
	driver     *exec.Driver
	supervisor *supervisor
	outbox     *outbox
	vault      *vault
	others     map[string]*vault // where its vault fetches from, by node ID
	journal    *journal
	cancel     context.CancelFunc
	ended      chan struct{}
	index      uint64
}

// newRig starts a supervisor on the data directory dir, which may hold an earlier one's.
func newRig(t *testing.T, dir string) *rig { return newRigWith(t, dir, nil) }

// newRigWith is newRig with a keeper of the node's devices.
func newRigWith(t *testing.T, dir string, k *keeper) *rig {
	t.Helper()
	for _, name := range []string{journalFolder, tasksFolder} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o711); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: dir, outbox: newOutbox(), ended: make(chan struct{}), index: 100}
	r.site = site{nodeID: "n-agenttest", nodeName: "n1", tasks: filepath.Join(dir, tasksFolder)}
	r.driver = exec.NewDriver(exec.DriverConfig{Self: self, Args: []string{"shim"}, NodeID: "n-agenttest", Warm: 1, Log: quiet})
	if r.journal, err = openJournal(filepath.Join(dir, journalFolder)); err != nil {
		t.Fatal(err)
	}
	r.supervisor = newSupervisor(r.site, r.driver, r.journal, r.outbox, quiet)
	r.others = map[string]*vault{}
	if r.vault, err = newVault(filepath.Join(dir, checkpointsFolder), "n-agenttest", r.outbox, r.fromOthers, quiet); err != nil {
		t.Fatal(err)
	}
	r.vault.store.Reserve, r.outbox.stored, r.supervisor.runner.vault = 0, r.vault.acknowledged, r.vault
	r.supervisor.keeper = k
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { defer close(r.ended); r.supervisor.run(ctx) }()
	t.Cleanup(r.close)
	return r
}

// close ends the supervisor as a kill would: the tasks run on.
func (r *rig) close() {
	r.cancel()
	<-r.ended
	r.driver.Close()
	_ = r.journal.close()
	r.driver.RemoveStale()
}

// shellTask makes an assignment that runs a script.
func shellTask(id, script string) *pb.Assignment {
	var job string
	var epoch uint64
	var rank int32
	if _, err := fmt.Sscanf(id, "j-1.e%d.r%d", &epoch, &rank); err == nil {
		job = "j-1"
	}
	return &pb.Assignment{
		Task:       &pb.Task{Id: id, JobId: job, Epoch: epoch, Rank: rank, LocalRank: rank, Role: "worker", Desired: pb.TaskDesired_TASK_DESIRED_RUN},
		Role:       &pb.RoleSpec{Name: "worker", Count: 1, Command: []string{"/bin/sh", "-c", script}, GraceMs: 5000},
		Allocation: &pb.Allocation{TaskId: id}, Attempt: &pb.Attempt{JobId: job, Epoch: epoch, WorldSize: 1}, JobName: "j",
		AttemptKey: []byte("0123456789abcdef0123456789abcdef"),
	}
}

// desire sends a full desired set.
func (r *rig) desire(assignments ...*pb.Assignment) {
	r.index++
	r.supervisor.post(desiredNews{&pb.Desired{Index: r.index, Full: true, Assignments: assignments}})
}

func (r *rig) forget(ids ...string) {
	r.index++
	r.supervisor.post(desiredNews{&pb.Desired{Index: r.index, Forget: ids}})
}

// await waits for a report of the task in one of the states, acknowledging what comes.
func (r *rig) await(id string, states ...pb.TaskState) *pb.TaskReport {
	r.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case <-r.outbox.reports:
		case <-timeout:
			r.t.Fatalf("no report of %s in state %v within %s", id, states, patience)
		}
		var match *pb.TaskReport
		for m := r.outbox.take(); m != nil; m = r.outbox.take() {
			for _, report := range m.GetReports() {
				for _, state := range states {
					if report.GetTaskId() == id && report.GetState() == state {
						match = report
					}
				}
			}
			r.supervisor.post(ackNews{r.outbox.acknowledge(m.GetSeq())})
		}
		if match != nil {
			return match
		}
	}
}

// eventually polls a condition that has no event of its own.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}
