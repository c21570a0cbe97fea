package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "llmos/proto/llmos/v1"
)

// bench is a desk with one node whose devices a script describes.
type bench struct {
	*desk
	script string
}

func sitAtBench(t *testing.T, script string) *bench {
	t.Helper()
	b := &bench{script: filepath.Join(t.TempDir(), "devices.yaml")}
	if err := os.WriteFile(b.script, []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LLMOS_ALLOW_MIG", "true")
	b.desk = sit(t, 1, b.script)
	return b
}

// write changes the script, whole at once.
func (b *bench) write(script string) {
	b.t.Helper()
	if err := os.WriteFile(b.script+".new", []byte(script), 0o644); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Rename(b.script+".new", b.script); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) node() *pb.NodeView {
	b.t.Helper()
	nodes, err := b.cl.ListNodes(b.ctx, &pb.ListNodesRequest{Detail: true})
	if err != nil || len(nodes.Nodes) != 1 {
		b.t.Fatalf("%v, %v", nodes, err)
	}
	return nodes.Nodes[0]
}

// seeNode waits until the node is as it should be.
func (b *bench) seeNode(what string, ok func(*pb.NodeView) bool) *pb.NodeView {
	b.t.Helper()
	for {
		if n := b.node(); ok(n) {
			return n
		}
		select {
		case <-b.ctx.Done():
			b.t.Fatalf("the node is never %s: %v", what, b.node())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// health writes the devices of a node as text: gpu-a:ok gpu-b:failed.
func health(n *pb.NodeView) string {
	var out []string
	for _, d := range n.Node.Devices {
		out = append(out, d.Id+":"+strings.ToLower(strings.TrimPrefix(d.Health.String(), "DEVICE_HEALTH_")))
	}
	return strings.Join(out, " ")
}

func (b *bench) seeHealth(want string) *pb.NodeView {
	b.t.Helper()
	return b.seeNode(want, func(n *pb.NodeView) bool { return health(n) == want })
}

// deviceOf gives the device that a job's only task holds.
func (b *bench) deviceOf(id string) string {
	b.t.Helper()
	a := b.view(id).Allocations
	if len(a) != 1 || len(a[0].Devices) != 1 {
		b.t.Fatalf("job %s holds %v", id, a)
	}
	return a[0].Devices[0].DeviceId
}

// on is a job whose task runs on one device.
func (b *bench) on(name string) string {
	b.t.Helper()
	id := b.submit(b.job(name, 1, 1))
	b.seeRunning(id)
	return id
}

func (b *bench) says(want string, args ...string) {
	b.t.Helper()
	s := llmos(b.t, b.c, args...)
	if !strings.Contains(s.out+s.err, want) {
		b.t.Errorf("llmos %s says %q and not %q", strings.Join(args, " "), s.out+s.err, want)
	}
}

// repaired says that a node, or a device of it, is repaired, until its agent answers.
func (b *bench) repaired(want string, args ...string) {
	b.t.Helper()
	for b.ctx.Err() == nil {
		s := llmos(b.t, b.c, append([]string{"repair"}, args...)...)
		if s.code == 0 {
			if !strings.Contains(s.out, want) {
				b.t.Errorf("llmos repair %s says %q and not %q", strings.Join(args, " "), s.out, want)
			}
			return
		}
	}
	b.t.Fatal("the agent never answers")
}

func untouched(t *testing.T, v *pb.JobView) {
	t.Helper()
	if !running(v) || v.Job.Epoch != 1 {
		t.Errorf("job %s was touched: %v", v.Job.Id, v.Job)
	}
}

const threeGPUs = "devices:\n  - {model: H100-80GB, id: gpu-a}\n  - {model: H100-80GB, id: gpu-b}\n  - {model: H100-80GB, id: gpu-c}\n"

// TestXID48: the task on the device is started again elsewhere and loses no retry, the device
// takes no new work until it is repaired, its neighbour is untouched.
func TestXID48(t *testing.T) {
	b := sitAtBench(t, threeGPUs)
	hurt, other := b.on("hurt"), b.on("other")
	device := b.deviceOf(hurt)
	b.write(threeGPUs + "xids: [{device: " + device + ", xid: 48}]\n")
	v := b.see(hurt, "running again", func(v *pb.JobView) bool { return running(v) && v.Job.Epoch == 2 })
	if v.Job.RetriesLeft != 0 || b.deviceOf(hurt) == device {
		t.Errorf("it runs on %s with %d retries left", b.deviceOf(hurt), v.Job.RetriesLeft)
	}
	untouched(t, b.view(other))
	n := b.seeNode("one device short", func(n *pb.NodeView) bool { return strings.Contains(health(n), device+":failed") })
	if n.Node.Unfit != "" {
		t.Errorf("the node is unfit: %s", n.Node.Unfit)
	}
	b.says("is failed: XID 48 (an error of two bits", "nodes")
	third := b.submit(b.job("third", 1, 1))
	b.says("forgotten: device "+device+": XID 48", "repair", n.Node.Name, device)
	b.seeRunning(third)
	if got := b.deviceOf(third); got != device {
		t.Errorf("the third job runs on %s, repaired was %s", got, device)
	}
}

// TestXID79: the task on the device is stopped, and the whole node takes no new work, also after
// its agent has started again; what else runs there runs on.
func TestXID79(t *testing.T) {
	b := sitAtBench(t, threeGPUs)
	hurt, other := b.on("hurt"), b.on("other")
	device := b.deviceOf(hurt)
	b.write(threeGPUs + "xids: [{device: " + device + ", xid: 79}]\n")
	v := b.see(hurt, "waiting", func(v *pb.JobView) bool { return v.Job.State == pb.JobState_JOB_STATE_PENDING })
	if !strings.Contains(v.Job.Reason, "XID 79 (the GPU has fallen off the bus) on device "+device) {
		t.Errorf("the job says %q", v.Job.Reason)
	}
	untouched(t, b.view(other))
	name := b.seeNode("unfit", func(n *pb.NodeView) bool { return n.Node.Unfit != "" }).Node.Name
	b.says("takes no new work: device "+device+": XID 79", "nodes")
	b.says("unfit", "nodes")
	agent := b.c.Agents[0]
	agent.Stop(10 * time.Second)
	b.write(threeGPUs) // the new agent would be told again
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	// Asked about another device it says that nothing is held, once it is there again.
	b.repaired("nothing was held", name, b.deviceOf(other))
	if v := b.view(hurt); v.Job.State != pb.JobState_JOB_STATE_PENDING {
		t.Errorf("an unfit node was given work: %v", v.Job)
	}
	b.repaired("forgotten: device "+device, name)
	b.see(hurt, "running again", func(v *pb.JobView) bool { return running(v) && v.Job.Epoch == 2 })
	untouched(t, b.view(other))
}

// TestSilentDriver: while the driver says nothing running work is untouched and there is no new
// work; then it heals by itself.
func TestSilentDriver(t *testing.T) {
	b := sitAtBench(t, threeGPUs)
	before := b.on("before")
	b.write("error: the driver is busy\n")
	b.seeHealth("gpu-a:stale gpu-b:stale gpu-c:stale")
	after := b.submit(b.job("after", 1, 1))
	b.see(after, "told why it waits", func(v *pb.JobView) bool { return v.WaitingReason != "" })
	untouched(t, b.view(before))
	b.write(threeGPUs)
	b.seeHealth("gpu-a:ok gpu-b:ok gpu-c:ok")
	b.seeRunning(after)
	untouched(t, b.view(before))
}

// TestVanishedAndReorderedGPUs: a device that goes while it is held stays taken until its task
// has ended, and indexes that are given anew mean nothing.
func TestVanishedAndReorderedGPUs(t *testing.T) {
	b := sitAtBench(t, threeGPUs)
	first, second := b.on("first"), b.on("second")
	held, kept := b.deviceOf(first), b.deviceOf(second)
	third := strings.NewReplacer(held, "", kept, "", "gpu-agpu-b", "", " ", "").Replace("gpu-a gpu-b gpu-c")
	b.write("devices:\n  - {model: H100-80GB, id: " + third + "}\n  - {model: H100-80GB, id: " + kept + "}\n")
	b.seeNode("one device short", func(n *pb.NodeView) bool { return strings.Contains(health(n), held+":gone") })
	untouched(t, b.view(first))
	untouched(t, b.view(second))
	if got := b.deviceOf(second); got != kept {
		t.Errorf("the second job holds %s, and held %s", got, kept)
	}
	b.end("first")
	b.seeDone(first)
	b.seeNode("rid of the device", func(n *pb.NodeView) bool { return !strings.Contains(health(n), held) })
	fresh := b.on("fresh")
	if got := b.deviceOf(fresh); got != third {
		t.Errorf("the fresh job runs on %s, free was %s", got, third)
	}
}

// TestGPUIsDivided: never while a task holds it; then its slices are granted.
func TestGPUIsDivided(t *testing.T) {
	b := sitAtBench(t, "devices: [{model: A100-80GB, id: gpu-a}]\n")
	holder := b.on("holder")
	name := b.node().Node.Name
	b.says("holds device gpu-a", "mig", name, "gpu-a", "2x1g.10gb,3g.40gb")
	b.end("holder")
	b.seeDone(holder)
	b.says("gpu-a-s2 A100-80GB 3g.40gb", "mig", name, "0", "2x1g.10gb,3g.40gb")
	b.seeHealth("gpu-a-s0:ok gpu-a-s1:ok gpu-a-s2:ok")
	spec := b.job("sliced", 1, 1)
	spec.Roles[0].Resources.MigProfile = "3g.40gb"
	sliced := b.submit(spec)
	b.seeRunning(sliced)
	if got := b.deviceOf(sliced); got != "gpu-a-s2" {
		t.Errorf("it runs on %s", got)
	}
	b.says("holds device gpu-a-s2", "mig", name, "gpu-a", "whole")
	b.says("gpu-a-s2", "devices")
	b.end("sliced")
	b.seeDone(sliced)
	b.says("gpu-a A100-80GB", "mig", name, "gpu-a", "whole")
	b.seeHealth("gpu-a:ok")
}
