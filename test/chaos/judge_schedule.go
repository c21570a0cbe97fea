package main

import (
	"fmt"
	"sort"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// schedule checks what the scheduler promised about every job, when all have ended.
func (j *judge) schedule(jobs map[string]*pb.JobView, lines []line, r *report) []string {
	var out []string
	for id, view := range jobs {
		job := view.Job
		r.Preemptions += int(job.Preemptions)
		r.Resizes += int(job.Resizes)
		if job.Parent != "" {
			r.Copies++
		}
		if job.Claim != nil {
			out = append(out, fmt.Sprintf("%s has ended, and room is still kept for it: %v", id, job.Claim))
		}
		evictions := job.Preemptions + job.Resizes
		if job.State != pb.JobState_JOB_STATE_CANCELLED && job.Epoch > 0 && job.Epoch <= uint64(evictions) {
			out = append(out, fmt.Sprintf("%s was stopped %d times for others and did not resume: it is %v in epoch %d", id, evictions, job.State, job.Epoch))
		}
		if job.Spec.Array != nil && job.CopiesUnfinished != 0 {
			out = append(out, fmt.Sprintf("array %s ended with %d copies unfinished", id, job.CopiesUnfinished))
		}
		if parent := jobs[job.Parent]; job.Parent != "" && parent != nil && parent.Job.FinishedMs < job.FinishedMs {
			out = append(out, fmt.Sprintf("array %s ended before its copy %s", job.Parent, id))
		}
	}
	out = append(out, dependencies(jobs, lines, r)...)
	sort.Strings(out)
	return out
}

// dependencies: no job started before those that it waits for had ended, in the order of the
// tasks' own diary, and none ran whose condition was not met.
func dependencies(jobs map[string]*pb.JobView, lines []line, r *report) (out []string) {
	first, last := map[string]int{}, map[string]int{}
	for i, l := range lines {
		if _, seen := first[l.job]; !seen && l.what == "start" {
			first[l.job] = i
		}
		last[l.job] = i
	}
	for id, view := range jobs {
		for _, d := range view.Job.Spec.After {
			r.Dependents++
			before := jobs[d.Job]
			if before == nil {
				out = append(out, fmt.Sprintf("%s waits for %s, which is not known", id, d.Job))
				continue
			}
			start, ran := first[id]
			if !ran {
				continue
			}
			if !met(d.Kind, before.Job.State) {
				out = append(out, fmt.Sprintf("%s ran (%v) although %s is %v", id, d.Kind, d.Job, before.Job.State))
			}
			if end, wrote := last[d.Job]; wrote && start < end && before.Job.State == pb.JobState_JOB_STATE_SUCCEEDED {
				out = append(out, fmt.Sprintf("%s started (line %d of the diary) before %s had ended (line %d)", id, start+1, d.Job, end+1))
			}
			if view.Job.StartedMs != 0 && view.Job.StartedMs < before.Job.FinishedMs {
				out = append(out, fmt.Sprintf("%s started %d ms before %s had ended", id, before.Job.FinishedMs-view.Job.StartedMs, d.Job))
			}
		}
	}
	return out
}

func met(kind pb.DependencyKind, end pb.JobState) bool {
	switch kind {
	case pb.DependencyKind_DEPENDENCY_KIND_ANY:
		return true
	case pb.DependencyKind_DEPENDENCY_KIND_FAILED:
		return end == pb.JobState_JOB_STATE_FAILED || end == pb.JobState_JOB_STATE_CANCELLED
	}
	return end == pb.JobState_JOB_STATE_SUCCEEDED
}

// spared: no job that may not be stopped for others was. A drain may stop it.
func spared(id string, view *pb.JobView) (out []string) {
	for _, e := range view.Events {
		if e.Kind == "job.preempted" && view.Job.Spec.NoPreempt && !strings.Contains(e.Message, "drained or reserved") {
			out = append(out, fmt.Sprintf("%s must not be stopped for another job: %s", id, e.Message))
		}
	}
	return out
}
