package fsm

import (
	"fmt"
	"iter"
	"strings"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// shows tell of the state after each verb.
var shows = map[string]func(*state.State, words) string{
	"job":      showJob,
	"attempts": showAttempts,
	"tasks": func(s *state.State, w words) string {
		return lines(s.JobTasks(w.arg(0), uint64(w.number("", 0, w.arg(1)))), showTask)
	},
	"nodetasks": func(s *state.State, w words) string { return lines(s.NodeTasks(w.arg(0)), showTask) },
	"account":   showAccount,
	"nodes": func(s *state.State, _ words) string {
		return lines(s.Nodes(), func(n *pb.Node) string {
			out := fmt.Sprintf("%s %s %s since %d", n.Id, n.Name, strings.TrimPrefix(n.State.String(), "NODE_STATE_"), n.StateSinceMs)
			for _, d := range n.Devices {
				out += fmt.Sprintf(" %s:%s", d.Id, strings.TrimPrefix(d.Health.String(), "DEVICE_HEALTH_"))
			}
			return out
		})
	},
	"held": func(s *state.State, _ words) string {
		return lines(s.Allocations(), func(a *pb.Allocation) string {
			out := fmt.Sprintf("%s on %s: cpu=%d mem=%d ports=%v", a.TaskId, a.NodeId, a.CpuMilli, a.MemoryBytes, a.Ports)
			if a.HoldsRendezvous {
				out += " rendezvous"
			}
			for _, g := range a.Devices {
				out += fmt.Sprintf(" %s:%d:%d", g.DeviceId, g.ShareMilli, g.MemoryBytes)
			}
			return out
		})
	},
	"unfinished": func(s *state.State, _ words) string {
		return lines(s.UnfinishedJobs(), func(j *pb.Job) string { return j.Id + " " + stateOf(j) })
	},
	"life":     showLife,
	"claims":   func(s *state.State, _ words) string { return lines(s.ClaimedJobs(), showClaim) },
	"children": func(s *state.State, w words) string { return lines(s.Children(w.arg(0)), showCopy) },
	"waiting":  func(s *state.State, w words) string { return lines(s.Dependents(w.arg(0)), showCopy) },
	"crons":    func(s *state.State, _ words) string { return lines(s.CronJobs(), showCopy) },
	"tree": func(s *state.State, _ words) string {
		return lines(s.Queues(), func(q *pb.Queue) string { return showQueue(s, q) })
	},
	"usage": func(s *state.State, w words) string {
		return lines(s.UsageDays(w.number("", 0, w.arg(0))), func(u *pb.UsageDay) string {
			return fmt.Sprintf("day %d %s %q: gpu=%d cpu=%d jobs=%d", u.Day, u.Queue, u.User, u.GpuMilliMs, u.CpuMilliMs, u.Jobs)
		})
	},
	"config":       func(s *state.State, _ words) string { return plain(s.SchedulerConfig()) + "\n" },
	"reservations": func(s *state.State, _ words) string { return lines(s.Reservations(), plain[*pb.Reservation]) },
	"drains": func(s *state.State, _ words) string {
		return lines(s.Nodes(), func(n *pb.Node) string { return n.Id + " " + plain(n.Drain) })
	},
	"jobs": func(s *state.State, _ words) string {
		return lines(s.Jobs(), func(j *pb.Job) string { return j.Id + " " + stateOf(j) })
	},
	"events": func(s *state.State, w words) string {
		events := s.ClusterEvents()
		if w.arg(0) == "job" {
			events = s.JobEvents(w.arg(1))
		} else if w.arg(0) == "node" {
			events = s.NodeEvents(w.arg(1))
		}
		out := ""
		for _, e := range events {
			out += fmt.Sprintf("%d.%d at %d %s: %s\n", e.Index, e.Ordinal, e.TimeMs, e.Kind, e.Message)
		}
		return out
	},
}

func lines[T any](seq iter.Seq[T], show func(T) string) (out string) {
	for v := range seq {
		out += show(v) + "\n"
	}
	if out == "" {
		return "none\n"
	}
	return out
}

func stateOf(j *pb.Job) string { return strings.TrimPrefix(j.State.String(), "JOB_STATE_") }

func showJob(s *state.State, w words) string {
	j := s.FindJob(w.arg(0))
	if j == nil {
		return "none\n"
	}
	return fmt.Sprintf("%s %s epoch=%d exit=%d retries=%d submitted=%d started=%d finished=%d: %s\n", j.Id, stateOf(j), j.Epoch, j.ExitCode,
		j.RetriesLeft, j.SubmittedMs, j.StartedMs, j.FinishedMs, j.Reason)
}

func showAttempts(s *state.State, w words) string {
	return lines(s.Attempts(w.arg(0)), func(a *pb.Attempt) string {
		out := fmt.Sprintf("%d %s world=%d at %s:%d", a.Epoch, strings.TrimPrefix(a.State.String(), "ATTEMPT_STATE_"), a.WorldSize,
			a.RendezvousHost, a.RendezvousPort)
		if a.Lost {
			out += " lost"
		}
		if a.Cause != "" {
			out += fmt.Sprintf(" exit=%d by %s: %s", a.ExitCode, a.CauseTask, a.Cause)
		}
		return out
	})
}

func showTask(k *pb.Task) string {
	out := fmt.Sprintf("%s %s/%d on %s local=%d %s, asked to %s", k.Id, k.Role, k.Index, k.NodeId, k.LocalRank,
		strings.TrimPrefix(k.State.String(), "TASK_STATE_"), strings.TrimPrefix(k.Desired.String(), "TASK_DESIRED_"))
	if k.ExitCode != 0 || k.Signal != 0 {
		out += fmt.Sprintf(" exit=%d signal=%d", k.ExitCode, k.Signal)
	}
	if k.Reason != "" {
		out += ": " + k.Reason
	}
	return out
}

func showAccount(s *state.State, w words) string {
	a := s.Account(w.arg(0))
	if a == nil {
		return "none\n"
	}
	out := fmt.Sprintf("available=%t cpu=%d/%d mem=%d/%d ports=%v\n", a.Available, a.CpuAllocated, a.CpuCapacity, a.MemoryAllocated, a.MemoryCapacity, a.PortsAllocated)
	for _, d := range a.Devices {
		out += fmt.Sprintf("  %s %s available=%t share=%d/1000 mem=%d/%d\n", d.DeviceId, d.Model, d.Available, d.ShareAllocated, d.MemoryAllocated, d.MemoryCapacity)
	}
	return out
}
