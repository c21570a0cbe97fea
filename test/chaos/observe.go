package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"llmos/proto/client"
	pb "llmos/proto/llmos/v1"
)

const observeEvery = 200 * time.Millisecond

// observer looks at the cluster while it is broken, and keeps what must never be seen.
type observer struct {
	client *client.Client
	cancel context.CancelFunc
	ended  chan struct{}

	looks      int
	claims     map[string]bool // jobs that were seen with room kept for them, and its kind
	violations []string
}

func observe(ctx context.Context, cl *client.Client) *observer {
	ctx, cancel := context.WithCancel(ctx)
	o := &observer{client: cl, cancel: cancel, ended: make(chan struct{}), claims: map[string]bool{}}
	go func() {
		defer close(o.ended)
		for ctx.Err() == nil {
			o.look(ctx)
			wait(ctx, observeEvery)
		}
	}()
	return o
}

// stop ends the looking and gives what was seen.
func (o *observer) stop(r *report) []string {
	o.cancel()
	<-o.ended
	r.Looks, r.Claims = o.looks, len(o.claims)
	return o.violations
}

// look takes one list of jobs and one of queues; each is of one state.
func (o *observer) look(ctx context.Context) {
	opCtx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	jobs, err := o.client.ListJobs(opCtx, &pb.ListJobsRequest{Limit: 5000})
	if err != nil {
		return // a cluster that is broken need not answer
	}
	queues, err := pb.NewClusterServiceClient(o.client).ListQueues(opCtx, &pb.ListQueuesRequest{})
	if err != nil {
		return
	}
	o.looks++
	for _, view := range jobs.Jobs {
		if c := view.Job.Claim; c != nil {
			o.claims[view.Job.Id+" "+c.Kind.String()] = true
		}
	}
	for _, text := range append(crowded(jobs.Jobs), beyondQuota(queues.Queues)...) {
		if !slices.Contains(o.violations, text) && len(o.violations) < 20 {
			o.violations = append(o.violations, text)
		}
	}
}

// crowded says which arrays run more copies at a time than their specs allow.
func crowded(jobs []*pb.JobView) (out []string) {
	running := map[string]int32{}
	for _, view := range jobs {
		if view.Job.Parent != "" && view.Job.State == pb.JobState_JOB_STATE_RUNNING {
			running[view.Job.Parent]++
		}
	}
	for _, view := range jobs {
		if most := view.Job.Spec.GetArray().GetParallel(); most > 0 && running[view.Job.Id] > most {
			out = append(out, fmt.Sprintf("array %s runs %d copies at a time, %d are allowed", view.Job.Id, running[view.Job.Id], most))
		}
	}
	return out
}

// beyondQuota says which queues hold more than their nominal quota and what they may borrow.
func beyondQuota(queues []*pb.QueueView) (out []string) {
	for _, view := range queues {
		for _, limit := range view.Queue.Limits {
			for _, used := range view.Used {
				if used.Resource == limit.Resource && limit.Borrow >= 0 && used.Nominal > limit.Nominal+limit.Borrow {
					out = append(out, fmt.Sprintf("queue %s holds %d of %s: its quota is %d and it may borrow %d", view.Queue.Name,
						used.Nominal, limit.Resource, limit.Nominal, limit.Borrow))
				}
			}
		}
	}
	return out
}
