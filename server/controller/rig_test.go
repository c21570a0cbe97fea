package controller_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"llmos/fsm"
	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
	"llmos/server/controller"
)

// rig is a controller on a real state machine with a log that the test commits by hand.
type rig struct {
	t       testing.TB
	log     *fsm.FSM
	index   uint64
	now     time.Duration
	loop    *controller.Controller
	flight  []controller.Propose
	leaders int
	known   map[string]*pb.Node
}

const wallStart = 1_700_000_000_000

func newRig(t testing.TB) *rig { return newRigOf(t, fsm.StateVersion) }

// newRigOf is a rig whose cluster is at a state version.
func newRigOf(t testing.TB, version uint32) *rig {
	r := &rig{t: t, log: fsm.New(), known: map[string]*pb.Node{}}
	r.entry(&pb.Command{Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{
		Meta: &pb.ClusterMeta{ClusterId: "c-000000000001", Name: "test", StateVersion: version, CreatedMs: wallStart}}}})
	r.lead()
	return r
}

// lead starts a new controller on the state.
func (r *rig) lead() {
	r.leaders++
	r.flight = nil
	r.loop = controller.New(controller.Config{LeaderID: fmt.Sprintf("s-%d", r.leaders),
		AttemptKey: func(job string, epoch uint64) []byte { return fmt.Appendf(nil, "%s/%d", job, epoch) }}, r.log.State(), r.now)
}

func (r *rig) entry(commands ...*pb.Command) []*pb.Result {
	r.index++
	return r.log.Apply(r.index, &pb.Entry{TimeMs: wallStart + r.now.Milliseconds(), Proposer: "s-1", Commands: commands})
}

// apply puts a command into the log as the API would.
func (r *rig) apply(command *pb.Command) {
	r.t.Helper()
	for _, result := range r.entry(command) {
		if result.GetFault() != nil {
			r.t.Fatalf("refused: %s", result.Fault.Message)
		}
	}
	r.loop.Step(controller.StateChanged{State: r.log.State()}, r.now)
}

type outcome int

const (
	outcomeApplied outcome = iota
	outcomeRefused
	outcomeUnknown
	outcomeEarly
)

// commit ends the flight of every proposal.
func (r *rig) commit(how outcome) string {
	flight := r.flight
	r.flight = nil
	out := ""
	for _, p := range flight {
		done := controller.ProposalDone{ID: p.ID}
		if how != outcomeRefused {
			done.Results = r.entry(p.Commands...)
			for _, result := range done.Results {
				out += faults(result)
			}
		}
		if how == outcomeRefused || how == outcomeUnknown {
			done.Results, done.Err = nil, errors.New("no outcome")
		}
		if how == outcomeEarly {
			r.loop.Step(done, r.now)
			out += r.flush() + "state:\n"
		}
		r.loop.Step(controller.StateChanged{State: r.log.State()}, r.now)
		if how != outcomeEarly {
			r.loop.Step(done, r.now)
		}
	}
	return out + r.flush()
}

func faults(result *pb.Result) string {
	out := ""
	if f := result.GetFault(); f != nil {
		out += fmt.Sprintf("fault: %s\n", f.Message)
	}
	for _, g := range result.GetGangs() {
		if g.Fault != nil {
			out += fmt.Sprintf("fault: %s: %s\n", g.JobId, g.Fault.Message)
		}
	}
	return out
}

// flush takes the effects, puts the proposals in flight and prints all.
func (r *rig) flush() string {
	out := ""
	for _, effect := range r.loop.Ready() {
		if p, ok := effect.(controller.Propose); ok {
			r.flight = append(r.flight, p)
		}
		out += r.print(effect)
	}
	return out
}

func (r *rig) pass(d time.Duration) {
	r.now += d
	r.loop.Tick(r.now)
}

// ticks lets time pass as package server would: waking when it is wanted.
// The nodes send heartbeats meanwhile.
func (r *rig) ticks(d time.Duration, nodes ...string) string {
	out := r.flush()
	for end := r.now + d; r.now < end; {
		next, ok := r.loop.NextTick()
		if !ok || next > end {
			next = end
		}
		if next <= r.now {
			r.t.Fatalf("NextTick gives %s at %s", next, r.now)
		}
		r.pass(next - r.now)
		for _, node := range nodes {
			r.heard(node)
		}
		got := r.flush()
		for len(r.flight) > 0 {
			got += r.commit(outcomeApplied)
		}
		if got != "" {
			out += fmt.Sprintf("at %s:\n%s", r.now, got)
		}
	}
	return out
}

func (r *rig) session(word string) (node string, session uint64) {
	node, number, ok := strings.Cut(word, "/")
	session, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil {
		r.t.Fatalf("not a session: %q", word)
	}
	return node, session
}

func (r *rig) hello(words []string) {
	node, session := r.session(words[0])
	n := r.known[node]
	if n == nil {
		n = makeNode(node, 8, 0)
	}
	hello := &pb.Hello{Node: n, ClusterId: "c-000000000001"}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "cpu":
			n.CpuMilli = 1000 * number(r.t, value)
		case "gpus":
			n = makeNode(node, n.CpuMilli/1000, int(number(r.t, value)))
		case "name":
			n.Name = value
		default:
			hello.Tasks = append(hello.Tasks, taskReport(r.t, word))
		}
	}
	hello.Node = n
	r.known[node] = n
	r.loop.Step(controller.SessionOpened{NodeID: node, Session: session, Hello: hello}, r.now)
}

func makeNode(id string, cpus int64, gpus int) *pb.Node {
	n := &pb.Node{Id: id, Name: id, Addr: id + ":7301", BootId: "boot", CpuMilli: 1000 * cpus, MemoryBytes: 64 << 30, PortMin: 20000, PortMax: 20099}
	for i := range gpus {
		n.Devices = append(n.Devices, &pb.Device{Id: fmt.Sprintf("%s.%d", id, i), Kind: "gpu", Vendor: "scripted", Model: "H100-80GB",
			MemoryBytes: 80 << 30, Health: pb.DeviceHealth_DEVICE_HEALTH_OK, Index: int32(i)})
	}
	return n
}

// taskReport reads TASK=STATE.
func taskReport(t testing.TB, word string) *pb.TaskReport {
	t.Helper()
	id, name, ok := strings.Cut(word, "=")
	value, known := pb.TaskState_value["TASK_STATE_"+name]
	if !ok || !known {
		t.Fatalf("not a report: %q", word)
	}
	_, rest, _ := strings.Cut(id, ".e")
	epoch, err := strconv.ParseUint(strings.Split(rest, ".")[0], 10, 64)
	if err != nil {
		t.Fatalf("not a task: %q", id)
	}
	report := &pb.TaskReport{TaskId: id, Epoch: epoch, State: pb.TaskState(value)}
	if report.State == pb.TaskState_TASK_STATE_FAILED {
		report.ExitCode = 1
	}
	return report
}

func (r *rig) report(words []string) {
	node, session := r.session(words[0])
	ev := controller.ReportsArrived{NodeID: node, Session: session, Seq: uint64(number(r.t, words[1]))}
	for _, word := range words[2:] {
		ev.Reports = append(ev.Reports, taskReport(r.t, word))
	}
	r.loop.Step(ev, r.now)
}

func (r *rig) closeSession(word string) {
	node, session := r.session(word)
	r.loop.Step(controller.SessionClosed{NodeID: node, Session: session}, r.now)
}

func (r *rig) heard(node string) { r.loop.Step(controller.Heard{NodeID: node}, r.now) }

func submit(t testing.TB, words []string) *pb.Command {
	t.Helper()
	spec := &pb.JobSpec{Name: words[0], Kind: pb.JobKind_JOB_KIND_BATCH, Priority: 50}
	role := &pb.RoleSpec{Name: "worker", Count: 1, Command: []string{"true"}, Resources: &pb.Resources{CpuMilli: 1000, MemoryBytes: 1 << 30}}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		n := number(t, value)
		switch key {
		case "count":
			role.Count = int32(n)
		case "cpu":
			role.Resources.CpuMilli = 1000 * n
		case "gpus":
			role.Resources.Gpus = int32(n)
		case "lost":
			spec.LostAfterMs = n
		case "retries":
			spec.Retries = int32(n)
		case "keep":
			spec.Checkpoint = &pb.CheckpointSpec{Path: "ckpt", Keep: int32(n)}
		case "every":
			spec.CheckpointEveryMs = n
		case "framework":
			spec.Framework = pb.Framework(n)
			role.Ports = []string{"http", strings.ToLower(strings.TrimPrefix(spec.Framework.String(), "FRAMEWORK_"))}
		default:
			t.Fatalf("unknown word %q", word)
		}
	}
	spec.Roles = []*pb.RoleSpec{role}
	return &pb.Command{Op: &pb.Command_SubmitJob{SubmitJob: &pb.SubmitJob{RequestId: "request-" + words[0], Spec: spec, User: "someone"}}}
}

func stop(job string) *pb.Command {
	return &pb.Command{Op: &pb.Command_StopJob{StopJob: &pb.StopJob{JobId: job, User: "someone", Reason: "asked"}}}
}

func number(t testing.TB, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatalf("not a number: %q", s)
	}
	return n
}

// show prints jobs, the tasks that hold something, and nodes.
func show(st *state.State) string {
	out := ""
	for j := range st.Jobs() {
		out += fmt.Sprintf("job %s %s epoch %d\n", j.Id, strings.TrimPrefix(j.State.String(), "JOB_STATE_"), j.Epoch)
	}
	for n := range st.Nodes() {
		a := st.Account(n.Id)
		out += fmt.Sprintf("node %s %s cpu %d/%d", n.Id, strings.TrimPrefix(n.State.String(), "NODE_STATE_"), a.CpuAllocated, a.CpuCapacity)
		for t := range st.NodeTasks(n.Id) {
			out += fmt.Sprintf(" %s=%s", t.Id, shortState(t.State))
		}
		out += "\n"
	}
	return out
}

func shortState(s pb.TaskState) string { return strings.TrimPrefix(s.String(), "TASK_STATE_") }
