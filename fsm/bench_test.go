package fsm

import (
	"bytes"
	"fmt"
	"testing"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// benchNodes is the size of the benchmarks' cluster: nodes of 8 devices.
const benchNodes = 1000

type benchCluster struct {
	fsm   *FSM
	index uint64
}

func newBenchCluster(b *testing.B, backlog int) *benchCluster {
	c := &benchCluster{fsm: New()}
	for n := range benchNodes {
		node := &pb.Node{Id: fmt.Sprintf("n-%012x", n), Name: fmt.Sprintf("gpu-%04d", n), Addr: fmt.Sprintf("10.0.%d.%d:7301", n/250, n%250),
			CpuMilli: 128_000, MemoryBytes: 1 << 40, PortMin: 20000, PortMax: 29999, NumaNodes: 2, Os: "linux", CpuModel: "a CPU",
			Labels: map[string]string{"zone": "a", "rack": fmt.Sprint(n / 20)}}
		for d := range 8 {
			node.Devices = append(node.Devices, &pb.Device{Id: fmt.Sprintf("GPU-%08x-0000-0000-0000-%012d", n, d), Kind: "gpu", Vendor: "nvidia",
				Model: "H100-80GB", MemoryBytes: 80 << 30, Health: pb.DeviceHealth_DEVICE_HEALTH_OK, Index: int32(d), BusId: "00000000:1B:00.0"})
		}
		c.must(b, &pb.Command{Op: &pb.Command_RegisterNode{RegisterNode: &pb.RegisterNode{Node: node}}})
	}
	for n := range backlog {
		c.must(b, benchSubmit(fmt.Sprintf("waits-%d", n), 1))
	}
	return c
}

func (c *benchCluster) must(b *testing.B, commands ...*pb.Command) []*pb.Result {
	c.index++
	results := c.fsm.Apply(c.index, &pb.Entry{TimeMs: int64(c.index), Commands: commands})
	for _, r := range results {
		if r.Fault != nil {
			b.Fatal(r.Fault)
		}
		for _, g := range r.Gangs {
			if g.Fault != nil {
				b.Fatal(g.Fault)
			}
		}
	}
	return results
}

func benchSubmit(request string, tasks int) *pb.Command {
	return &pb.Command{Op: &pb.Command_SubmitJob{SubmitJob: &pb.SubmitJob{RequestId: request, User: "ann", Spec: &pb.JobSpec{
		GenerateName: "bench", Kind: pb.JobKind_JOB_KIND_BATCH, Priority: 50, Roles: []*pb.RoleSpec{{Name: "worker", Count: int32(tasks),
			Command: []string{"/usr/bin/python3", "train.py", "--steps=400"}, Env: map[string]string{"A": "1", "B": "2"},
			Resources: &pb.Resources{CpuMilli: 8000, MemoryBytes: 64 << 30, Gpus: 1}}}}}}}
}

func (c *benchCluster) place(jobID string, tasks, seed int) *pb.Command {
	g := &pb.GangPlacement{JobId: jobID, Epoch: 1}
	for rank := range tasks {
		slot := (seed*tasks + rank) % (benchNodes * 8)
		node, device := slot/8, slot%8
		p := &pb.TaskPlacement{NodeId: fmt.Sprintf("n-%012x", node),
			Devices: []*pb.DeviceGrant{{DeviceId: fmt.Sprintf("GPU-%08x-0000-0000-0000-%012d", node, device), ShareMilli: 1000}}}
		if rank == 0 && tasks > 1 {
			p.Ports = []int32{int32(20000 + device)}
		}
		g.Tasks = append(g.Tasks, p)
	}
	return &pb.Command{Op: &pb.Command_ApplyPlan{ApplyPlan: &pb.ApplyPlan{Gangs: []*pb.GangPlacement{g}}}}
}

// reports makes the reports of a gang, one command for each node.
func (c *benchCluster) reports(jobID string, to pb.TaskState) (out []*pb.Command) {
	var last *pb.ReportTasks
	for task := range c.fsm.State().JobTasks(jobID, 1) {
		if last == nil || last.NodeId != task.NodeId {
			last = &pb.ReportTasks{NodeId: task.NodeId}
			out = append(out, &pb.Command{Op: &pb.Command_ReportTasks{ReportTasks: last}})
		}
		last.Reports = append(last.Reports, &pb.TaskReport{TaskId: task.Id, Epoch: 1, State: to, StartedMs: 1, EndedMs: 2})
	}
	return out
}

// BenchmarkLife is the hot path: submit, place, run and end a job, one command an entry, in a
// cluster of 1,000 nodes with 8 devices each and 10,000 jobs that wait.
func BenchmarkLife(b *testing.B) {
	for _, tasks := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("tasks=%d", tasks), func(b *testing.B) {
			c := newBenchCluster(b, 10_000)
			b.ReportAllocs()
			start := c.index
			n := 0
			for b.Loop() {
				id := c.must(b, benchSubmit(fmt.Sprintf("r-%d", n), tasks))[0].JobId
				c.must(b, c.place(id, tasks, n))
				for _, to := range []pb.TaskState{pb.TaskState_TASK_STATE_RUNNING, pb.TaskState_TASK_STATE_SUCCEEDED} {
					for _, report := range c.reports(id, to) {
						c.must(b, report)
					}
				}
				if c.fsm.State().Job(id).State != pb.JobState_JOB_STATE_SUCCEEDED {
					b.Fatal("the job has not succeeded")
				}
				n++
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(c.index-start), "µs/command")
		})
	}
}

// BenchmarkBatch submits 64 jobs in one entry.
func BenchmarkBatch(b *testing.B) {
	c := newBenchCluster(b, 0)
	n := 0
	for b.Loop() {
		commands := make([]*pb.Command, 64)
		for i := range commands {
			n++
			commands[i] = benchSubmit(fmt.Sprintf("r-%d", n), 1)
		}
		c.must(b, commands...)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/1000/float64(n), "µs/command")
}

// BenchmarkArray submits an array of 1,000 copies in one command, and stops it in another.
func BenchmarkArray(b *testing.B) {
	c := newBenchCluster(b, 10_000)
	n := 0
	for b.Loop() {
		n++
		submit := benchSubmit(fmt.Sprintf("r-%d", n), 1)
		submit.GetSubmitJob().Spec.Array = &pb.ArraySpec{Count: 1000}
		id := c.must(b, submit)[0].JobId
		c.must(b, &pb.Command{Op: &pb.Command_StopJob{StopJob: &pb.StopJob{JobId: id}}})
		if c.fsm.State().Job(id).State != pb.JobState_JOB_STATE_CANCELLED {
			b.Fatal("the array has not ended")
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/1000/1000/float64(n), "µs/copy")
}

// BenchmarkUnfinished walks 10,000 waiting jobs, as a scheduling pass does.
func BenchmarkUnfinished(b *testing.B) {
	s := newBenchCluster(b, 10_000).fsm.State()
	for b.Loop() {
		n := 0
		for range s.UnfinishedJobs() {
			n++
		}
	}
}

// BenchmarkSnapshot writes and reads the state of 1,000 nodes and 10,000 jobs.
func BenchmarkSnapshot(b *testing.B) {
	s := newBenchCluster(b, 10_000).fsm.State()
	var out bytes.Buffer
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			out.Reset()
			if err := Write(&out, s); err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(int64(out.Len()))
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := Read(bytes.NewReader(out.Bytes())); err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(int64(out.Len()))
	})
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			if err := state.Check(s); err != nil {
				b.Fatal(err)
			}
		}
	})
}
