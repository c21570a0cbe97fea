package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "llmos/proto/llmos/v1"
)

// shared is a job that holds a quarter of a device and memory of it, says by a child of
// its own which process that is, and runs until it is told to end.
func (d *desk) shared(name, pidFile string, memory int64) *pb.JobSpec {
	spec := d.job(name, 1, 1)
	role := spec.Roles[0]
	role.Command[2] = `sh -c 'echo $$ > "$PID_FILE.new"; mv "$PID_FILE.new" "$PID_FILE"; exec sleep 600' & ` + untilTold
	role.Env["PID_FILE"] = pidFile
	role.Resources.GpuShareMilli, role.Resources.GpuMemoryBytes = 250, memory
	return spec
}

// TestFractionIsHeld: of two tasks on one device, the one that takes more of its memory than
// it was granted is ended and says so; its neighbour runs on.
func TestFractionIsHeld(t *testing.T) {
	dir := t.TempDir()
	greedyPID, modestPID := filepath.Join(dir, "greedy.pid"), filepath.Join(dir, "modest.pid")
	devices := filepath.Join(dir, "devices.yaml")
	text := fmt.Sprintf("devices: [{model: H100-80GB, id: gpu-shared}]\nuses:\n"+
		"  - {device: gpu-shared, pid_file: %s, memory_mb: 12595}\n  - {device: gpu-shared, pid_file: %s, memory_mb: 10000}\n", greedyPID, modestPID)
	if err := os.WriteFile(devices, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	d := sit(t, 1, devices)
	modest := d.submit(d.shared("modest", modestPID, 10<<30))
	d.seeRunning(modest)
	greedy := d.submit(d.shared("greedy", greedyPID, 10<<30))
	v := d.see(greedy, "failed", func(v *pb.JobView) bool { return v.Job.State == pb.JobState_JOB_STATE_FAILED })
	const why = "used 12.3 GiB of device gpu-shared, 10 GiB were granted"
	task := v.Tasks[0]
	if task.State != pb.TaskState_TASK_STATE_FAILED || task.Reason != why || !strings.Contains(v.Job.Reason, why) {
		t.Errorf("job %v, task %v, want failed: %s", v.Job, task, why)
	}
	if pid, err := os.ReadFile(greedyPID); err != nil || alive(strings.TrimSpace(string(pid))) {
		t.Errorf("process %s of the ended task is still there (%v)", pid, err)
	}
	if v := d.view(modest); !running(v) || v.Job.Epoch != 1 {
		t.Errorf("the neighbour: %v", v.Job)
	}
	d.end("modest")
	d.seeDone(modest)
}

func alive(pid string) bool {
	_, err := os.Stat("/proc/" + pid)
	return err == nil
}

// TestSlice: a task that asks for a MIG slice gets one, and is shown it alone.
func TestSlice(t *testing.T) {
	dir := t.TempDir()
	devices := filepath.Join(dir, "devices.yaml")
	if err := os.WriteFile(devices, []byte("devices:\n  - {model: A100-80GB, id: gpu-0}\n  - {model: A100-80GB, id: mig-1, mig: 1g.10gb, parent: gpu-1}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := sit(t, 1, devices)
	spec := d.job("sliced", 1, 1)
	spec.Roles[0].Resources.MigProfile = "1g.10gb"
	spec.Roles[0].Command[2] = `test "$CUDA_VISIBLE_DEVICES" = mig-1 && ` + untilTold
	id := d.submit(spec)
	d.seeRunning(id)
	d.end("sliced")
	d.seeDone(id)
}
