package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"llmos/agent/exec"
	pb "llmos/proto/llmos/v1"
)

const (
	running   = pb.TaskState_TASK_STATE_RUNNING
	succeeded = pb.TaskState_TASK_STATE_SUCCEEDED
	failed    = pb.TaskState_TASK_STATE_FAILED
	stopped   = pb.TaskState_TASK_STATE_STOPPED
	lost      = pb.TaskState_TASK_STATE_LOST
)

const (
	first  = "j-1.e1.r0"
	second = "j-1.e2.r0"
)

func (r *rig) logOf(id string) string {
	reader := exec.OpenLog(r.site.dir(id), 0)
	defer reader.Close()
	var b strings.Builder
	for {
		c, ok, err := reader.Next()
		if err != nil {
			r.t.Fatal(err)
		}
		if !ok {
			return b.String()
		}
		b.Write(c.Data)
	}
}

func TestTaskFromAssignmentToForgetting(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.desire(shellTask(first, "echo hello; exit 4"))
	report := r.await(first, failed)
	if report.GetExitCode() != 4 || report.GetReason() != "exit 4" || report.GetStartedMs() == 0 || report.GetEpoch() != 1 {
		t.Fatalf("report %v", report)
	}
	if out := r.logOf(first); out != "hello\n" {
		t.Fatalf("log %q", out)
	}
	r.forget(first)
	eventually(t, "the task is forgotten", func() bool {
		known, _ := r.journal.known()
		_, err := os.Stat(filepath.Join(r.site.dir(first), "spec.json"))
		return len(known) == 0 && len(r.supervisor.list()) == 0 && os.IsNotExist(err)
	})
	if out := r.logOf(first); out != "hello\n" {
		t.Fatalf("log after forgetting %q", out)
	}
}

func TestStopIsReportedAsStopped(t *testing.T) {
	r := newRig(t, t.TempDir())
	a := shellTask(first, "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done")
	r.desire(a)
	r.await(first, running)
	eventually(t, "the trap is set", func() bool { return r.logOf(first) == "up\n" })
	stop := shellTask(first, "")
	stop.Task.Desired = pb.TaskDesired_TASK_DESIRED_STOP
	r.desire(stop)
	if report := r.await(first, stopped, succeeded, failed); report.GetState() != stopped {
		t.Fatalf("report %v", report)
	}
}

func TestStopBeforeStartNeverStarts(t *testing.T) {
	r := newRig(t, t.TempDir())
	a := shellTask(first, "echo ran")
	a.Task.Desired = pb.TaskDesired_TASK_DESIRED_STOP
	r.desire(a)
	if report := r.await(first, stopped); report.GetStartedMs() != 0 {
		t.Fatalf("report %v", report)
	}
	r.desire(shellTask(first, "echo ran"))
	r.desire()
	eventually(t, "cleaned", func() bool { return len(r.supervisor.list()) == 0 })
	if out := r.logOf(first); out != "" {
		t.Fatalf("it ran: %q", out)
	}
}

func TestTasksOutliveTheAgentAndAreAdopted(t *testing.T) {
	dir := t.TempDir()
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, dir)
	task := shellTask(first, "echo before; read x < "+gate+"; echo after; exit 7")
	r.desire(task)
	began := r.await(first, running).GetStartedMs()
	r.close()
	again := newRig(t, dir)
	if report := again.await(first, running); report.GetStartedMs() != began {
		t.Fatalf("adopted with another start: %v, first %d", report, began)
	}
	if list := again.supervisor.list(); len(list) != 1 || list[0].GetState() != running {
		t.Fatalf("hello would hold %v", list)
	}
	again.desire(task)
	if err := os.WriteFile(gate, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	if report := again.await(first, failed); report.GetExitCode() != 7 {
		t.Fatalf("report %v", report)
	}
	if out := again.logOf(first); out != "before\nafter\n" {
		t.Fatalf("log %q: it was not started exactly once", out)
	}
}

// A crash between the journal and the shim leaves a task that nobody has started: it is
// reported lost and never started, however often the servers want it.
func TestJournaledButNotStartedIsNeverStarted(t *testing.T) {
	for _, stage := range []string{"no directory", "directory", "spec"} {
		t.Run(stage, func(t *testing.T) {
			dir := t.TempDir()
			task := shellTask(first, "echo ran")
			j, err := openJournal(mkdir(t, filepath.Join(dir, journalFolder)))
			if err != nil {
				t.Fatal(err)
			}
			if err := j.assign(7, []*pb.Assignment{task}); err != nil {
				t.Fatal(err)
			}
			if err := j.close(); err != nil {
				t.Fatal(err)
			}
			s := site{tasks: mkdir(t, filepath.Join(dir, tasksFolder)), nodeName: "n1"}
			switch stage {
			case "directory":
				mkdir(t, s.dir(first))
			case "spec":
				if _, err := s.prepare(task, 1); err != nil {
					t.Fatal(err)
				}
			}
			r := newRig(t, dir)
			r.desire(task)
			report := r.await(first, lost, running, succeeded)
			if report.GetState() != lost || !strings.Contains(report.GetReason(), "before the task was started") {
				t.Fatalf("report %v", report)
			}
			r.desire(task)
			r.await2(task)
			if out := r.logOf(first); out != "" {
				t.Fatalf("it ran: %q", out)
			}
		})
	}
}

// await2 lets the loop take one more round.
func (r *rig) await2(task *pb.Assignment) {
	r.desire(task)
	index := r.index
	eventually(r.t, "the loop has seen the set", func() bool { return r.supervisor.seen.Load() == index })
}

func mkdir(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestOlderAttemptIsFencedFirst(t *testing.T) {
	r := newRig(t, t.TempDir())
	evidence := filepath.Join(t.TempDir(), "evidence")
	old := shellTask(first, "trap 'sleep 0.2; echo old-end >> "+evidence+"; exit 0' TERM; echo up; while :; do sleep 0.05; done")
	r.desire(old)
	r.await(first, running)
	eventually(t, "the trap is set", func() bool { return r.logOf(first) == "up\n" })
	r.desire(shellTask(second, "echo new-start >> "+evidence))
	r.await(second, succeeded)
	got, err := os.ReadFile(evidence)
	if err != nil || string(got) != "old-end\nnew-start\n" {
		t.Fatalf("order %q (%v)", got, err)
	}
}

func TestUnknownTaskOfAFullSetIsStopped(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.desire(shellTask(first, "sleep 60"))
	r.await(first, running)
	r.desire()
	r.await(first, stopped)
}

func TestUnstartableIsReportedWithItsReason(t *testing.T) {
	r := newRig(t, t.TempDir())
	a := shellTask(first, "")
	a.Role.Workdir = "/no/such/folder"
	r.desire(a)
	report := r.await(first, failed)
	if want := "working directory /no/such/folder does not exist on node n1"; report.GetReason() != want || report.GetExitCode() != 125 {
		t.Fatalf("report %v, want %q", report, want)
	}
}

func TestOnlyTheLastEndedTasksAreKept(t *testing.T) {
	s := site{tasks: t.TempDir()}
	c := newCleaner(s, quiet)
	name := func(i int) string { return "j-" + strings.Repeat("x", i) }
	for i := range endedTasksKept + 3 {
		if err := s.recordEnd(name(i), exec.Exit{State: exec.Succeeded, EndedMS: int64(i)}); err != nil {
			t.Fatal(err)
		}
		c.retire(name(i))
	}
	entries, err := os.ReadDir(s.tasks)
	if err != nil || len(entries) != endedTasksKept {
		t.Fatalf("%d kept (%v), want %d", len(entries), err, endedTasksKept)
	}
	if _, err := os.Stat(s.dir(name(2))); !os.IsNotExist(err) {
		t.Errorf("the oldest are still there: %v", err)
	}
	again := newCleaner(s, quiet)
	if strays := again.begin(nil); len(strays) != 0 || len(again.kept) != endedTasksKept || again.kept[0] != name(3) {
		t.Errorf("after a restart: strays %v, %d kept, first %q", strays, len(again.kept), again.kept[0])
	}
}

// The job's folder is made by the agent and given away by the shim: a node that finds it
// between the two, or after a crash there, has to give it away as well.
func TestJobFolderIsGivenAwayUntilItIs(t *testing.T) {
	s := site{tasks: t.TempDir(), nodeName: "n1", sharedDir: t.TempDir()}
	folder := filepath.Join(s.sharedDir, "j-1")
	for _, id := range []string{first, second} {
		spec, err := s.prepare(shellTask(id, "true"), 1)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(spec.Owned, folder) {
			t.Errorf("task %s: given away are %v, want %s too", id, spec.Owned, folder)
		}
	}
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), folder); err != nil {
		t.Fatal(err)
	}
	if _, err := s.prepare(shellTask("j-1.e3.r0", "true"), 1); err == nil || !strings.Contains(err.Error(), "is no folder") {
		t.Errorf("a link in the folder's place gives %v", err)
	}
}

// A shim that is suspended says nothing to the next run of the agent; its task can be
// stopped all the same.
func TestTaskOfASuspendedShimIsStopped(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t, dir)
	r.desire(shellTask(first, "sleep 1000"))
	r.await(first, running)
	r.close()
	var claim struct {
		PID int `json:"pid"`
	}
	if found, err := readJSON(filepath.Join(r.site.dir(first), "claim"), &claim); err != nil || !found {
		t.Fatal(found, err)
	}
	if err := syscall.Kill(claim.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(claim.PID, syscall.SIGCONT) })
	again := newRig(t, dir)
	stop := shellTask(first, "")
	stop.Task.Desired = pb.TaskDesired_TASK_DESIRED_STOP
	again.desire(stop)
	if report := again.await(first, stopped, lost, failed); report.GetState() != stopped {
		t.Fatalf("report %v", report)
	}
}
