package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "llmos/proto/llmos/v1"
	"llmos/test/rig"
)

const agentMemoryMax = 40 << 20

// TestHostileTasksAreContained: tasks that exhaust their memory, processes and disk, that
// log 1 GB and that do not want to end are each held to what they asked for, named by what
// they met, and leave nothing. The agent's own memory stays under 40 MiB.
func TestHostileTasksAreContained(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root's agent can hold tasks by cgroups")
	}
	d := sit(t, 1, "none")
	agent := d.c.Agents[0]
	hostile := func(name, script string, change func(*pb.RoleSpec)) string {
		spec := d.job(name, 1, 0)
		spec.Roles[0].Command[2] = script
		spec.Roles[0].Resources.MemoryBytes = 64 << 20
		change(spec.Roles[0])
		return d.submit(spec)
	}
	keep := func(*pb.RoleSpec) {}
	ends := map[string]string{ // job: what its task's end says, as far as it is the same everywhere
		hostile("memory", "tail /dev/zero", keep): "OOM killed: 64 MiB limit",
		hostile("bomb", "bomb() { bomb | bomb & bomb; }; bomb", func(r *pb.RoleSpec) { r.Resources.Pids = 64 }):                   "met its limit of 64 processes and threads (",
		hostile("disk", "head -c 30000000 /dev/zero > big; sleep 600", func(r *pb.RoleSpec) { r.Resources.DiskBytes = 16 << 20 }): "used more than the 16 MiB of disk it asked for",
	}
	loud := hostile("loud", "head -c 1000000000 /dev/zero; echo done", func(r *pb.RoleSpec) { r.LogMaxBytes = 1 << 20 })
	const deaf = `trap "" TERM HUP; `
	stubborn := hostile("stubborn", deaf+`(setsid sh -c '`+deaf+`while :; do sleep 600; done' &); while :; do sleep 600; done`, func(r *pb.RoleSpec) { r.GraceMs = 100 })
	for id, why := range ends {
		v := d.see(id, "failed", func(v *pb.JobView) bool { return v.Job.State == pb.JobState_JOB_STATE_FAILED })
		if task := v.Tasks[0]; !strings.HasPrefix(task.Reason, why) || !strings.Contains(v.Job.Reason, why) {
			t.Errorf("%s: task %q, job %q, want %q", id, task.Reason, v.Job.Reason, why)
		}
	}
	d.seeRunning(stubborn)
	if s := llmos(t, d.c, "stop", stubborn); s.code != 0 {
		t.Errorf("stop: %+v", s)
	}
	d.see(stubborn, "cancelled", func(v *pb.JobView) bool { return v.Job.State == pb.JobState_JOB_STATE_CANCELLED })
	d.see(loud, "done", func(v *pb.JobView) bool { return v.Job.State == pb.JobState_JOB_STATE_SUCCEEDED })
	// What it has read of the program's file is the kernel's to drop, and shared with every shim.
	peak, program := memoryOf(t, agent, "VmHWM:"), memoryOf(t, agent, "RssFile:")
	t.Logf("the agent took at most %.1f MiB, %.1f of them pages of the program's file", float64(peak)/(1<<20), float64(program)/(1<<20))
	if peak-program > agentMemoryMax {
		t.Errorf("the agent took %d MiB of its own", (peak-program)>>20)
	}
	seeAlone(t, agent)
	logs := int64(0)
	files, err := filepath.Glob(filepath.Join(agent.DataDir, "tasks", loud+".*", "log", "*"))
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			logs += info.Size()
		}
	}
	if err != nil || logs == 0 || logs > 2<<20 {
		t.Errorf("the log of 1 GB takes %d bytes in %d files, 1 MiB was granted (%v)", logs, len(files), err)
	}
}

// seeAlone waits until no process of a task is left on the agent's host.
func seeAlone(t *testing.T, agent *rig.Process) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		left := taskProcesses(agent)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("processes are left of ended tasks: %v", left)
			return
		}
		<-tick.C
	}
}

// taskProcesses lists the agent's children that work in a task's folder.
func taskProcesses(agent *rig.Process) (left []string) {
	for _, pid := range agent.Children() {
		cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		if err == nil && strings.HasPrefix(cwd, filepath.Join(agent.DataDir, "tasks")) {
			left = append(left, fmt.Sprintf("%d in %s", pid, cwd))
		}
	}
	return left
}

// memoryOf reads a size of /proc/PID/status, bytes.
func memoryOf(t *testing.T, p *rig.Process, key string) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if value, found := strings.CutPrefix(line, key); found {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no %s in %s", key, data)
	return 0
}
