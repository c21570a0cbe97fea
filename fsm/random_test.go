package fsm

import (
	"fmt"
	"slices"

	"pgregory.net/rapid"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// drawCommand draws a command for a state: most often one that fits it, sometimes one that does not.
func drawCommand(t *rapid.T, s *state.State) *pb.Command {
	draws := []func(*rapid.T, *state.State) *pb.Command{
		drawSubmit, drawSubmit, drawPlan, drawPlan, drawPlan, drawPlan, drawPlan, drawReport, drawReport, drawReport, drawReport, drawReport, drawReport,
		drawNode, drawNodeState, drawLose, drawStop, drawRest, drawSchedule, drawSchedule, drawSchedule,
		drawCheckpoint, drawCheckpoint, drawCheckpoint, drawCheckpoint,
	}
	if s.Index() < 8 && chance(t, 50) { // nothing can be placed before there are nodes
		return drawNode(t, s)
	}
	return rapid.SampledFrom(draws).Draw(t, "kind")(t, s)
}

func chance(t *rapid.T, percent int) bool { return rapid.IntRange(1, 100).Draw(t, "chance") <= percent }

func drawNodeID(t *rapid.T) string { return fmt.Sprintf("n-%d", rapid.IntRange(1, 3).Draw(t, "node")) }

func drawSubmit(t *rapid.T, s *state.State) *pb.Command {
	w := words{verb: "submit", set: map[string]string{}}
	name := rapid.SampledFrom([]string{"a", "b", "c", ""}).Draw(t, "name")
	if name == "" || chance(t, 30) {
		w.set["generate"] = "g"
	} else {
		w.args = []string{name}
	}
	w.set["count"] = fmt.Sprint(rapid.IntRange(1, 3).Draw(t, "count"))
	w.set["cpu"] = fmt.Sprint(rapid.SampledFrom([]int{0, 100, 100, 500, 1500, 2500}).Draw(t, "cpu"))
	w.set["gpus"] = fmt.Sprint(rapid.SampledFrom([]int{0, 0, 1, 1, 2}).Draw(t, "gpus"))
	w.set["retries"] = fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "retries"))
	if chance(t, 30) {
		w.set["gpus"], w.set["share"] = "1", fmt.Sprint(rapid.IntRange(1, 1000).Draw(t, "share"))
	}
	if chance(t, 50) {
		w.set["req"] = fmt.Sprintf("r%d", rapid.IntRange(1, 6).Draw(t, "req"))
	}
	if chance(t, 30) {
		w.set["ports"] = "http"
	}
	if chance(t, 40) {
		w.set["ranks"] = rapid.SampledFrom([]string{"unspecified", "first", "each"}).Draw(t, "ranks")
		w.set["keep"] = fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "keep"))
	}
	for j := range s.Jobs() {
		if j.SavedMs > 0 && chance(t, 30) {
			w.set["resume"] = j.Id
		}
	}
	if rapid.SampledFrom([]bool{false, true}).Draw(t, "waits") {
		drawWaiting(t, s, w)
	}
	return submitCommand(w)
}

// drawPlan places one to three jobs, mostly pending ones, where there may be room.
func drawPlan(t *rapid.T, s *state.State) *pb.Command {
	plan := &pb.ApplyPlan{}
	jobs := slices.Collect(s.Jobs())
	if chance(t, 90) {
		jobs = slices.DeleteFunc(jobs, func(j *pb.Job) bool { return !pending(j) || len(j.BlockedBy) > 0 })
	}
	if saved := slices.DeleteFunc(slices.Clone(jobs), func(j *pb.Job) bool { return j.SavedMs == 0 }); len(saved) > 0 && chance(t, 70) {
		jobs = saved // what goes on from a checkpoint is rare enough
	}
	if len(jobs) == 0 {
		return drawSubmit(t, s)
	}
	for range rapid.IntRange(1, 3).Draw(t, "gangs") {
		job := rapid.SampledFrom(jobs).Draw(t, "job")
		g := &pb.GangPlacement{JobId: job.Id, Epoch: job.Epoch + 1}
		if chance(t, 5) {
			g.Epoch = uint64(rapid.IntRange(0, 3).Draw(t, "epoch"))
		}
		world := state.WorldSize(job.Spec)
		if elastic(job.Spec) && chance(t, 70) || chance(t, 20) {
			g.Counts = drawCounts(t, job.Spec)
			world = sum(g.Counts)
		}
		for range world {
			g.Tasks = append(g.Tasks, drawPlacement(t, s, job.Spec, len(g.Tasks), world))
		}
		plan.Gangs = append(plan.Gangs, g)
	}
	return &pb.Command{Op: &pb.Command_ApplyPlan{ApplyPlan: plan}}
}

func drawPlacement(t *rapid.T, s *state.State, spec *pb.JobSpec, rank, world int) *pb.TaskPlacement {
	p := &pb.TaskPlacement{NodeId: drawNodeID(t)}
	role := spec.Roles[0]
	account := s.Account(p.NodeId)
	for _, d := range account.GetDevices() {
		if len(p.Devices) < int(role.GetResources().GetGpus()) && (d.ShareAllocated < 1000 || chance(t, 10)) {
			p.Devices = append(p.Devices, &pb.DeviceGrant{DeviceId: d.DeviceId})
		}
	}
	ports := len(role.Ports)
	if rank == 0 && world > 1 {
		ports++
	}
	for port := int32(20000 + 3*rank); len(p.Ports) < ports; port++ {
		if !slices.Contains(account.GetPortsAllocated(), port) || chance(t, 5) {
			p.Ports = append(p.Ports, port)
		}
	}
	return p
}

// someTasks gives the tasks that hold something, and a few others.
func someTasks(t *rapid.T, s *state.State, nodeID string) []*pb.Task {
	tasks := slices.Collect(s.NodeTasks(nodeID))
	if chance(t, 20) {
		for j := range s.Jobs() {
			tasks = slices.AppendSeq(tasks, s.JobTasks(j.Id, j.Epoch))
		}
	}
	return tasks
}

func drawReport(t *rapid.T, s *state.State) *pb.Command {
	c := &pb.ReportTasks{NodeId: drawNodeID(t)}
	for _, task := range someTasks(t, s, c.NodeId) {
		if chance(t, 40) {
			continue
		}
		states := []pb.TaskState{pb.TaskState_TASK_STATE_RUNNING, pb.TaskState_TASK_STATE_SUCCEEDED, pb.TaskState_TASK_STATE_SUCCEEDED,
			pb.TaskState_TASK_STATE_FAILED, pb.TaskState_TASK_STATE_STOPPED, pb.TaskState_TASK_STATE_LOST, pb.TaskState_TASK_STATE_ASSIGNED}
		c.Reports = append(c.Reports, &pb.TaskReport{TaskId: task.Id, Epoch: task.Epoch,
			State:        states[rapid.IntRange(0, len(states)-1).Draw(t, "state")],
			ResumeFailed: chance(t, 50),
			ExitCode:     int32(rapid.IntRange(0, 2).Draw(t, "exit")), Signal: int32(rapid.IntRange(0, 1).Draw(t, "signal") * 9)})
	}
	return &pb.Command{Op: &pb.Command_ReportTasks{ReportTasks: c}}
}

func drawNode(t *rapid.T, _ *state.State) *pb.Command {
	w := words{verb: "node", args: []string{drawNodeID(t)}, set: map[string]string{}}
	w.set["gpus"] = rapid.SampledFrom([]string{"", "g0", "g0,g1", "g0,g1", "g0,g1", "g1,g2", "g0:FAILED,g1", "g0:STALE,g1:GONE"}).Draw(t, "gpus")
	w.set["cpu"] = rapid.SampledFrom([]string{"4000", "4000", "2000"}).Draw(t, "cpu")
	w.set["gmem"] = rapid.SampledFrom([]string{"80G", "80G", "40G"}).Draw(t, "gmem")
	if chance(t, 10) {
		w.set["name"] = "shared"
	}
	return nodeCommand(w)
}

func drawNodeState(t *rapid.T, _ *state.State) *pb.Command {
	to := rapid.SampledFrom([]string{"READY", "SILENT", "LOST"}).Draw(t, "to")
	return nodeStateCommand(words{args: []string{drawNodeID(t), to}})
}

func drawLose(t *rapid.T, s *state.State) *pb.Command {
	c := &pb.LoseTasks{NodeId: drawNodeID(t), Reason: "silent"}
	for _, task := range someTasks(t, s, c.NodeId) {
		if chance(t, 50) {
			c.TaskIds = append(c.TaskIds, task.Id)
		}
	}
	return &pb.Command{Op: &pb.Command_LoseTasks{LoseTasks: c}}
}

func drawStop(t *rapid.T, s *state.State) *pb.Command {
	id := "a"
	if jobs := slices.Collect(s.Jobs()); len(jobs) > 0 {
		id = jobs[rapid.IntRange(0, len(jobs)-1).Draw(t, "job")].Id
	}
	return &pb.Command{Op: &pb.Command_StopJob{StopJob: &pb.StopJob{JobId: id, User: "ann", Failed: chance(t, 20)}}}
}

// drawRest draws the commands that are rare.
func drawRest(t *rapid.T, s *state.State) *pb.Command {
	token := fmt.Sprintf("t%d", rapid.IntRange(1, 3).Draw(t, "token"))
	switch rapid.IntRange(0, 5).Draw(t, "rest") {
	case 0:
		return commands["init"](nil, words{args: []string{rapid.SampledFrom([]string{"c-1", "c-1", "c-2"}).Draw(t, "cluster")}})
	case 1:
		return commands["token"](nil, words{args: []string{token}, set: map[string]string{"secret": "x", "role": "agent", "expires": "100000"}})
	case 2:
		secret := rapid.SampledFrom([]string{"x", "x", "y"}).Draw(t, "secret")
		return commands["join"](nil, words{args: []string{token}, set: map[string]string{"secret": secret, "role": "agent", "member": "n-1"}})
	case 3:
		return commands["remove"](nil, words{args: []string{drawNodeID(t)}})
	case 4:
		hash := s.Hash()
		return &pb.Command{Op: &pb.Command_VerifyHash{VerifyHash: &pb.VerifyHash{Index: s.Index(), Hash: hash[:]}}}
	}
	before := s.TimeMS() - int64(rapid.IntRange(0, 3000).Draw(t, "age"))
	return &pb.Command{Op: &pb.Command_Collect{Collect: &pb.Collect{JobsFinishedBeforeMs: before, RequestsBeforeMs: before,
		TokensExpiredBeforeMs: before, UsageBeforeDay: int64(rapid.IntRange(0, 1).Draw(t, "day")), ReservationsEndedBeforeMs: before,
		Limit: int32(rapid.IntRange(0, 3).Draw(t, "limit"))}}}
}
