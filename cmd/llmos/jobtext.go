package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"llmos/proto/client"
	pb "llmos/proto/llmos/v1"
)

// This file puts a job into words. It prints nothing.

func jobState(j *pb.Job) string { return word(j.GetState().String(), "JOB_STATE_") }

// taskCounts gives how many tasks run and how many the job has: of an elastic one, as many
// as its attempt, or the most before there is one.
func taskCounts(v *pb.JobView) (running, all int) {
	for i, r := range v.GetJob().GetSpec().GetRoles() {
		all += int(countOf(v, i, r))
	}
	for _, t := range v.Tasks {
		if t.State == pb.TaskState_TASK_STATE_RUNNING {
			running++
		}
	}
	return running, all
}

// countOf gives the tasks of a role: those of its live attempt where that says so.
func countOf(v *pb.JobView, role int, r *pb.RoleSpec) int32 {
	waits := v.GetJob().GetState() == pb.JobState_JOB_STATE_PENDING
	if counts := v.GetAttempt().GetCounts(); !waits && role < len(counts) {
		return counts[role]
	}
	return r.GetCount()
}

// gpuText sums what a job asks for, or holds: 8, 0.5, 2..8 while an elastic one waits, or -
// for none; of an array, what each copy asks for.
func gpuText(v *pb.JobView) string {
	low, high := int64(0), int64(0)
	waits := v.GetJob().GetState() == pb.JobState_JOB_STATE_PENDING
	for i, r := range v.GetJob().GetSpec().GetRoles() {
		each := int64(r.GetResources().GetGpus()) * 1000
		if share := int64(r.GetResources().GetGpuShareMilli()); share > 0 {
			each = each / 1000 * share
		}
		n := int64(countOf(v, i, r))
		high += n * each
		if waits && r.GetCountMin() > 0 {
			n = int64(r.GetCountMin())
		}
		low += n * each
	}
	switch {
	case high == 0:
		return "-"
	case v.GetJob().GetSpec().GetArray() != nil:
		return milliText(high) + " each"
	case low < high:
		return milliText(low) + ".." + milliText(high)
	}
	return milliText(high)
}

// milliText writes thousandths without needless zeros: 1500 is 1.5.
func milliText(milli int64) string {
	return strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64)
}

// leading gives the progress of the job's lowest rank that has told any.
func leading(v *pb.JobView) *pb.Progress {
	var first *pb.Progress
	for _, p := range v.Progress {
		if first == nil || p.Rank < first.Rank {
			first = p
		}
	}
	return first
}

// progressText is short: 30% loss 1.83, or step 120 loss 1.83.
func progressText(v *pb.JobView) string {
	p := leading(v)
	if p == nil || (p.Step == 0 && p.Steps == 0) { // it says nothing of itself; what it uses is measured
		return "-"
	}
	text := fmt.Sprintf("step %d", p.Step)
	if p.Steps > 0 {
		text = fmt.Sprintf("%d%%", 100*min(p.Step, p.Steps)/p.Steps)
	}
	if loss, told := p.Values["loss"]; told {
		text += " loss " + valueText(loss)
	}
	return text
}

// psBar is the width of the bar of a job's progress in a list.
const psBar = 8

// progressCell is the text of a job's progress; on a terminal a bar where it is known how far
// the job is, for which the measured values make room.
func (a *app) progressCell(v *pb.JobView, text string) string {
	p := leading(v)
	if !a.outTTY || p == nil || p.Steps <= 0 {
		return text
	}
	return fmt.Sprintf("%s %d%%", gauge(p.Step, p.Steps), 100*min(max(p.Step, 0), p.Steps)/p.Steps)
}

// stallText says which rank makes no progress; empty when all do.
func (a *app) stallText(v *pb.JobView) string {
	if len(v.Stalls) == 0 {
		return ""
	}
	s := v.Stalls[0]
	since := age(a.since(s.SinceMs))
	switch {
	case s.Rank < 0:
		return fmt.Sprintf("no progress for %s, at step %d", since, s.Step)
	case len(v.Stalls) > 1:
		return fmt.Sprintf("%d ranks make no progress for %s, such as rank %d at step %d; others are at %d", len(v.Stalls), since, s.Rank, s.Step, s.FrontStep)
	}
	return fmt.Sprintf("rank %d makes no progress for %s, at step %d; others are at %d", s.Rank, since, s.Step, s.FrontStep)
}

// valueText writes a measured value in four digits or so.
func valueText(v float64) string {
	switch {
	case v >= 10_000 || v <= -10_000:
		return strconv.FormatFloat(v/1000, 'f', 1, 64) + "k"
	case v >= 100 || v <= -100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

const nodesNamed = 2 // of a running job; more are counted

// whereText says where a job runs, why it waits, or how it ended.
func whereText(v *pb.JobView, nodeNames map[string]string) string {
	job := v.GetJob()
	switch {
	case job.GetState() == pb.JobState_JOB_STATE_PENDING:
		return firstOf(v.WaitingReason, job.GetReason(), "waits for a placement")
	case client.Finished(job.GetState()):
		return endText(job)
	}
	var nodes []string
	for _, t := range v.Tasks {
		name := firstOf(nodeNames[t.NodeId], t.NodeId)
		if !slices.Contains(nodes, name) {
			nodes = append(nodes, name)
		}
	}
	if len(nodes) > nodesNamed {
		return count(len(nodes), "node")
	}
	return strings.Join(nodes, ", ")
}

// endText says how a finished job ended.
func endText(job *pb.Job) string {
	if job.State == pb.JobState_JOB_STATE_SUCCEEDED {
		return "took " + age(jobDuration(job))
	}
	if job.Reason != "" {
		return job.Reason
	}
	if job.State == pb.JobState_JOB_STATE_FAILED {
		return fmt.Sprintf("exit code %d", job.ExitCode)
	}
	return "was stopped"
}

// jobDuration is from the first task's start, or else the submit, to the end.
func jobDuration(job *pb.Job) time.Duration {
	from := job.StartedMs
	if from == 0 {
		from = job.SubmittedMs
	}
	return time.Duration(max(job.FinishedMs-from, 0)) * time.Millisecond
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// exitOf gives the exit code of `run --wait`: the job's own; a job that did not succeed
// never gives 0.
func exitOf(job *pb.Job) int {
	switch {
	case job.GetState() == pb.JobState_JOB_STATE_SUCCEEDED:
		return exitOK
	case job.GetExitCode() > 0 && job.GetExitCode() < 256:
		return int(job.GetExitCode())
	}
	return exitFailed
}
