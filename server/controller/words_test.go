package controller_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"

	pb "llmos/proto/llmos/v1"
	"llmos/server/controller"
)

func (r *rig) print(effect controller.Effect) string {
	switch e := effect.(type) {
	case controller.Propose:
		var parts []string
		for _, c := range e.Commands {
			parts = append(parts, commandText(c))
		}
		return fmt.Sprintf("propose %d: %s\n", e.ID, strings.Join(parts, "; "))
	case controller.Send:
		return fmt.Sprintf("send %s/%d: %s\n", e.NodeID, e.Session, messageText(e.Message))
	case controller.CloseSession:
		return fmt.Sprintf("close %s/%d: %s\n", e.NodeID, e.Session, e.Fault.Message)
	}
	r.t.Fatalf("unknown effect %T", effect)
	return ""
}

func commandText(c *pb.Command) string {
	switch op := c.Op.(type) {
	case *pb.Command_RegisterNode:
		return "register " + op.RegisterNode.Node.Id
	case *pb.Command_SetNodeState:
		return fmt.Sprintf("set %s %s (%s)", op.SetNodeState.NodeId, strings.TrimPrefix(op.SetNodeState.State.String(), "NODE_STATE_"), op.SetNodeState.Reason)
	case *pb.Command_ReportTasks:
		return fmt.Sprintf("report %s %s", op.ReportTasks.NodeId, reportsText(op.ReportTasks.Reports))
	case *pb.Command_LoseTasks:
		return fmt.Sprintf("lose %s %v (%s)", op.LoseTasks.NodeId, op.LoseTasks.TaskIds, op.LoseTasks.Reason)
	case *pb.Command_ApplyPlan:
		var gangs []string
		for _, g := range op.ApplyPlan.Gangs {
			text := fmt.Sprintf("%s.e%d", g.JobId, g.Epoch)
			for _, task := range g.Tasks {
				text += " " + task.NodeId
				for _, d := range task.Devices {
					text += "[" + d.DeviceId + "]"
				}
			}
			gangs = append(gangs, text)
		}
		for _, e := range op.ApplyPlan.Evictions {
			gangs = append(gangs, fmt.Sprintf("stop %s.e%d (%s: %s)", e.JobId, e.Epoch, strings.TrimPrefix(e.Kind.String(), "EVICTION_KIND_"), e.Reason))
		}
		for _, claim := range op.ApplyPlan.Claims {
			text := "keep for " + claim.JobId
			for _, slot := range claim.Claim.GetSlots() {
				text += " " + slot.NodeId
			}
			gangs = append(gangs, text)
		}
		return "plan " + strings.Join(gangs, ", ")
	case *pb.Command_FireCron:
		return fmt.Sprintf("fire %s for %s", op.FireCron.JobId, time.UnixMilli(op.FireCron.DueMs).UTC().Format(time.TimeOnly))
	case *pb.Command_LapseClaims:
		return fmt.Sprintf("lapse %v", op.LapseClaims.JobIds)
	case *pb.Command_StopJob:
		return fmt.Sprintf("stop %s failed=%v (%s)", op.StopJob.JobId, op.StopJob.Failed, op.StopJob.Reason)
	case *pb.Command_VerifyHash:
		return fmt.Sprintf("verify %d", op.VerifyHash.Index)
	case *pb.Command_RegisterCheckpoint:
		return "register " + checkpointText(op.RegisterCheckpoint.Checkpoint) + " on " + op.RegisterCheckpoint.NodeId
	case *pb.Command_LoseCheckpoint:
		return "lose " + checkpointText(op.LoseCheckpoint.Checkpoint) + " on " + op.LoseCheckpoint.NodeId
	case *pb.Command_PruneCheckpoints:
		return "prune " + op.PruneCheckpoints.JobId
	case *pb.Command_Collect:
		return "collect"
	}
	return fmt.Sprintf("%T", c.Op)
}

func reportsText(reports []*pb.TaskReport) string {
	var parts []string
	for _, report := range reports {
		parts = append(parts, report.TaskId+"="+shortState(report.State))
	}
	return strings.Join(parts, " ")
}

func messageText(m *pb.ServerMessage) string {
	switch m := m.Message.(type) {
	case *pb.ServerMessage_Welcome:
		return fmt.Sprintf("welcome of %s, heartbeat %d ms", m.Welcome.LeaderId, m.Welcome.HeartbeatMs)
	case *pb.ServerMessage_Acknowledge:
		return fmt.Sprintf("acknowledge %d", m.Acknowledge.Seq)
	case *pb.ServerMessage_Desired:
		kind := "changes"
		if m.Desired.Full {
			kind = "everything"
		}
		text := fmt.Sprintf("%s at %d:", kind, m.Desired.Index)
		for _, a := range m.Desired.Assignments {
			text += fmt.Sprintf(" %s=%s", a.Task.Id, strings.TrimPrefix(a.Task.Desired.String(), "TASK_DESIRED_"))
			if a.Role == nil || a.Allocation == nil || a.Attempt == nil || string(a.AttemptKey) != fmt.Sprintf("%s/%d", a.Task.JobId, a.Task.Epoch) {
				text += "(incomplete)"
			}
			if a.Resume != nil {
				text += " from " + holdingText(a.Resume)
			}
			for rank, p := range a.Peers {
				text += fmt.Sprintf(" %d:%s.%d@%s:%d", rank, p.Role, p.Index, p.Host, p.Port)
			}
		}
		if len(m.Desired.Forget) > 0 {
			slices.Sort(m.Desired.Forget)
			text += fmt.Sprintf(" forget %v", m.Desired.Forget)
		}
		if h := m.Desired.Holdings; h != nil && (!m.Desired.Full || len(h.Holdings) > 0) {
			text += " hold"
			for _, one := range h.Holdings {
				text += " [" + holdingText(one) + "]"
			}
		}
		return text
	}
	return "nothing"
}

// command reads a command of the log.
func command(t testing.TB, text string) *pb.Command {
	t.Helper()
	c := &pb.Command{}
	if err := prototext.Unmarshal([]byte(text), c); err != nil {
		t.Fatalf("not a command: %q: %v", text, err)
	}
	return c
}

// progress reads TASK STEP/STEPS [MiB]; the agent's clock is the log's.
func (r *rig) progress(words []string) *pb.Progress {
	done, all, _ := strings.Cut(words[1], "/")
	p := &pb.Progress{TaskId: words[0], Step: number(r.t, done), Steps: number(r.t, all), TimeMs: wallStart + r.now.Milliseconds()}
	if len(words) > 2 {
		p.Sample = &pb.Sample{TimeMs: p.TimeMs, MemoryBytes: number(r.t, words[2]) << 20}
	}
	return p
}

func planText(p *pb.PlanJobResponse) string {
	text := "would wait: " + p.Explanation.GetReason()
	if p.StartsNow {
		text = "would start on"
		for _, t := range p.Tasks {
			text += fmt.Sprintf(" %s as %s %v", t.NodeName, t.Role, t.DeviceIds)
		}
	}
	if len(p.Evicts) > 0 {
		text += fmt.Sprintf("; stopping %v", p.Evicts)
	}
	return text + "\n"
}

func forecastText(f *pb.Forecast) string {
	text := ""
	for _, s := range f.Series {
		last := s.Band[len(s.Band)-1]
		text += fmt.Sprintf("%s: %d samples, significant %v, in an hour %.0f MiB (%.0f to %.0f), asked for %.0f\n", s.Resource, len(s.Samples),
			s.Significant, last.Mean/(1<<20), last.Low/(1<<20), last.High/(1<<20), s.Request/(1<<20))
	}
	return text
}
