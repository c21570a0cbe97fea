package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"llmos/proto/client"
	pb "llmos/proto/llmos/v1"
	"llmos/test/rig"
)

// settle gives every node back to use, and waits until no job is unfinished and every server has applied the same index.
func settle(ctx context.Context, c *rig.Cluster, cl *client.Client, undrain func(context.Context) error) error {
	if err := c.WaitReady(ctx); err != nil {
		return err
	}
	if err := undrain(ctx); err != nil {
		return err
	}
	last := errors.New("nothing was seen")
	for ctx.Err() == nil {
		var pending []string
		jobs, err := cl.ListJobs(ctx, &pb.ListJobsRequest{})
		if err != nil {
			last = err
		} else {
			for _, j := range jobs.Jobs {
				pending = append(pending, fmt.Sprintf("%s %s (%s)", j.Job.Id, j.Job.State, j.WaitingReason))
			}
			if len(pending) == 0 {
				return nil
			}
			last = fmt.Errorf("%d jobs are unfinished, such as %s", len(pending), pending[0])
		}
		wait(ctx, 200*time.Millisecond)
	}
	return last
}

// judge checks the promises on a settled cluster.
type judge struct {
	cluster  *rig.Cluster
	client   *client.Client
	evidence *evidence
	load     *load
}

func newJudge(c *rig.Cluster, cl *client.Client, e *evidence, l *load) *judge {
	return &judge{cluster: c, client: cl, evidence: e, load: l}
}

// all runs every check and gives the violations, in the order of the checks.
func (j *judge) all(ctx context.Context, r *report) []string {
	var out []string
	jobs, err := j.jobs(ctx)
	if err != nil {
		return []string{"list the jobs: " + err.Error()}
	}
	r.Jobs = len(jobs)
	lines, err := j.evidence.lines()
	if err != nil {
		return []string{"read what the tasks wrote: " + err.Error()}
	}
	out = append(out, j.submits(jobs)...)
	out = append(out, j.tasks(jobs, lines, r)...)
	out = append(out, j.schedule(jobs, lines, r)...)
	broken, err := j.diaries(ctx, jobs, r)
	out = append(out, broken...)
	if err != nil {
		out = append(out, "read the jobs' events: "+err.Error())
	}
	out = append(out, j.ledger(ctx)...)
	out = append(out, j.hashes(ctx)...)
	out = append(out, j.orphans(ctx)...)
	return out
}

// jobs reads every job the cluster knows, by pages.
func (j *judge) jobs(ctx context.Context) (map[string]*pb.JobView, error) {
	out, after := map[string]*pb.JobView{}, ""
	for {
		page, err := j.client.ListJobs(ctx, &pb.ListJobsRequest{All: true, After: after, Limit: 500})
		if err != nil {
			return nil, err
		}
		for _, view := range page.Jobs {
			out[view.Job.Id] = view
			after = view.Job.Id
		}
		if !page.More {
			return out, nil
		}
	}
}

// diaries reads what the cluster says happened to each job. It counts the jobs that were
// started again, and the tasks that were given up as lost with their node (a run without any
// has not tried what matters most), and finds the evictions that must not be.
func (j *judge) diaries(ctx context.Context, jobs map[string]*pb.JobView, r *report) (out []string, err error) {
	for id, view := range jobs {
		if view.Job.Epoch < 2 && view.Job.Preemptions == 0 {
			continue
		}
		if view.Job.Epoch > 1 {
			r.JobsRestarted++
		}
		whole, err := j.client.GetJob(ctx, &pb.GetJobRequest{JobId: id})
		if err != nil {
			return out, err
		}
		out = append(out, spared(id, whole)...)
		for _, event := range whole.Events {
			if event.Kind == "task.lost" {
				r.TasksReplaced++
			}
		}
	}
	return out, nil
}

// submits: an acknowledged submit is there once; an unknown one at most once; nothing else is.
func (j *judge) submits(jobs map[string]*pb.JobView) []string {
	var out []string
	byRequest := map[string][]string{}
	for id, view := range jobs {
		if view.Job.Parent != "" {
			continue // a copy is there by its parent's request
		}
		byRequest[view.Job.RequestId] = append(byRequest[view.Job.RequestId], id)
	}
	known := map[string]bool{}
	for _, o := range j.load.history {
		if o.kind != "submit" {
			continue
		}
		known[o.request] = true
		ids := byRequest[o.request]
		switch {
		case o.outcome == acked && len(ids) == 0:
			out = append(out, fmt.Sprintf("acknowledged submit %s (%s) is lost", o.request, o.job))
		case o.outcome == acked && ids[0] != o.job:
			out = append(out, fmt.Sprintf("submit %s was told job %s but is %s", o.request, o.job, ids[0]))
		case o.outcome == failed && len(ids) > 0:
			out = append(out, fmt.Sprintf("submit %s was refused (%s) but ran as %s", o.request, o.err, ids[0]))
		}
		if len(ids) > 1 {
			out = append(out, fmt.Sprintf("submit %s ran %d times: %v", o.request, len(ids), ids))
		}
	}
	for request, ids := range byRequest {
		if !known[request] {
			out = append(out, fmt.Sprintf("job %s was submitted by nobody (request %q)", ids[0], request))
		}
	}
	sort.Strings(out)
	return out
}

// tasks: no device with two live tasks, each rank of an attempt started at most once, and a
// job that succeeded has every rank of its last attempt started and ended.
func (j *judge) tasks(jobs map[string]*pb.JobView, lines []line, r *report) []string {
	var out []string
	started, ended := map[string]int{}, map[string]int{}
	for _, l := range lines {
		switch l.what {
		case "start":
			r.TasksStarted++
			started[l.attempt()]++
			if jobs[l.job] == nil {
				out = append(out, "a task ran for the unknown job "+l.job)
			}
		case "end":
			ended[l.attempt()]++
		case "conflict":
			out = append(out, fmt.Sprintf("%s found %s held by another live task", l.attempt(), l.extra))
		}
	}
	for attempt, n := range started {
		if n > 1 {
			out = append(out, fmt.Sprintf("%s started %d times", attempt, n))
		}
	}
	for id, view := range jobs {
		if view.Job.State != pb.JobState_JOB_STATE_SUCCEEDED {
			continue
		}
		for rank := range view.Attempt.GetWorldSize() {
			attempt := line{job: id, epoch: fmt.Sprint(view.Job.Epoch), rank: fmt.Sprint(rank)}.attempt()
			if started[attempt] != 1 || ended[attempt] != 1 {
				out = append(out, fmt.Sprintf("%s succeeded, but %s started %d and ended %d times", id, attempt, started[attempt], ended[attempt]))
			}
		}
	}
	sort.Strings(out)
	return out
}

// ledger: with every job finished, nothing is allocated.
func (j *judge) ledger(ctx context.Context) []string {
	nodes, err := j.client.ListNodes(ctx, &pb.ListNodesRequest{})
	if err != nil {
		return []string{"list the nodes: " + err.Error()}
	}
	var out []string
	for _, n := range nodes.Nodes {
		a := n.Account
		if a.CpuAllocated != 0 || a.MemoryAllocated != 0 || len(a.PortsAllocated) != 0 {
			out = append(out, fmt.Sprintf("node %s still holds %d millicores, %d bytes, ports %v", n.Node.Name, a.CpuAllocated, a.MemoryAllocated, a.PortsAllocated))
		}
		for _, d := range a.Devices {
			if d.ShareAllocated != 0 || d.MemoryAllocated != 0 {
				out = append(out, fmt.Sprintf("node %s still holds %d thousandths of device %s", n.Node.Name, d.ShareAllocated, d.DeviceId))
			}
		}
	}
	return out
}

// hashes: every server has the same state at the same index, and no invariant is broken.
func (j *judge) hashes(ctx context.Context) []string {
	last := "the servers never stood at one index"
	for ctx.Err() == nil {
		statuses, err := j.cluster.LocalStatuses(ctx)
		if err != nil {
			last = err.Error()
			wait(ctx, 100*time.Millisecond)
			continue
		}
		same := true
		for _, s := range statuses {
			if s.InvariantFault != "" {
				return []string{fmt.Sprintf("server %s: %s", s.ServerId, s.InvariantFault)}
			}
			same = same && s.StateIndex == statuses[0].StateIndex
		}
		if !same {
			wait(ctx, 50*time.Millisecond)
			continue
		}
		for _, s := range statuses {
			if !bytes.Equal(s.StateHash, statuses[0].StateHash) {
				return []string{fmt.Sprintf("at index %d server %s has state %x, server %s has %x", s.StateIndex,
					s.ServerId, s.StateHash, statuses[0].ServerId, statuses[0].StateHash)}
			}
		}
		return nil
	}
	return []string{"compare state hashes: " + last}
}

// orphans: no task's process is left. Agents keep their own helpers; tasks must be gone.
func (j *judge) orphans(ctx context.Context) []string {
	for {
		left := j.cluster.TaskProcesses()
		if len(left) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return []string{fmt.Sprintf("task processes are left: %v", left)}
		}
		wait(ctx, 100*time.Millisecond)
	}
}
