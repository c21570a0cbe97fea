package e2e

import (
	"context"
	"strings"
	"testing"

	pb "llmos/proto/llmos/v1"
	"llmos/test/rig"
)

// TestContainerJob: a job with an image runs in a container of it, survives its agent, can be
// entered, and leaves nothing; one whose image is absent says so.
func TestContainerJob(t *testing.T) {
	if why := rig.EngineMissing(); why != "" {
		t.Skip(why)
	}
	e, err := rig.StartEngine(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Remove(); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("LLMOS_ENGINE", e.Socket)
	d := sit(t, 1, "none")
	spec := d.job("boxed", 1, 0)
	spec.Roles[0].Image = rig.EngineImage
	spec.Roles[0].Command = []string{"sh", "-c", `cat /etc/os-release 2>/dev/null; echo "rank $RANK of $WORLD_SIZE in $LLMOS_JOB_DIR"; echo kept > "$LLMOS_JOB_DIR/f"; until [ -e "$LLMOS_JOB_DIR/end" ]; do sleep 0.05; done; cat "$LLMOS_JOB_DIR/f"`}
	id := d.submit(spec)
	d.seeRunning(id)
	if s := llmos(t, d.c, "exec", id, "--", "sh", "-c", `echo beside; ls /bin/busybox; touch "$LLMOS_JOB_DIR/seen"`); s.code != 0 || s.out != "beside\n/bin/busybox\n" {
		t.Errorf("exec: %+v", s)
	}
	agent := d.c.Agents[0]
	agent.Kill()
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	if err := d.c.WaitReady(d.ctx); err != nil {
		t.Fatal(err)
	}
	v := d.seeRunning(id)
	if v.Job.Epoch != 1 {
		t.Errorf("the task was started again: %v", v.Job)
	}
	end := d.job("end", 1, 0)
	end.Roles[0].Command = []string{"touch", d.c.SharedDir() + "/" + id + "/end"}
	d.seeDone(d.submit(end))
	d.seeDone(id)
	if s := llmos(t, d.c, "logs", id); !strings.Contains(s.out, "rank 0 of 1 in "+d.c.SharedDir()+"/"+id) || !strings.Contains(s.out, "kept") || strings.Contains(s.out, "Debian") {
		t.Errorf("logs: %+v", s)
	}
	absent := d.job("absent", 1, 0)
	absent.Roles[0].Image = "localhost:9/no/such@sha256:" + strings.Repeat("0", 64)
	v = d.see(d.submit(absent), "failed", func(v *pb.JobView) bool { return v.Job.State == pb.JobState_JOB_STATE_FAILED })
	if want := "image " + absent.Roles[0].Image + " is not on node "; !strings.HasPrefix(v.Tasks[0].Reason, want) {
		t.Errorf("an absent image: %q", v.Tasks[0].Reason)
	}
	seeAlone(t, agent)
}
