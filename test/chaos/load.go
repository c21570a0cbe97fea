package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"llmos/proto/client"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

const (
	opTimeout   = 4 * time.Second
	lostAfterMS = 3000
	thinkMax    = 400 * time.Millisecond
	openJobsMax = 60 // unfinished jobs at which clients wait instead of submitting
)

// outcome is what a client knows of its operation.
type outcome int

const (
	acked outcome = iota
	failed
	unknown
)

// op is one line of a client's history.
type op struct {
	kind    string // submit, stop, and what the operator does: policy, queues, drain
	request string // of a submit
	job     string
	world   int
	outcome outcome
	err     string
}

// load submits and stops jobs and keeps what every client was told.
type load struct {
	client *client.Client
	self   string
	dir    string
	seed   uint64
	wg     sync.WaitGroup

	mu      sync.Mutex
	history []op
}

func newLoad(c *client.Client, self, dir string, seed uint64) *load {
	return &load{client: c, self: self, dir: dir, seed: seed}
}

func (l *load) start(ctx context.Context, n int) {
	for i := range n {
		l.wg.Add(1)
		go func() {
			defer l.wg.Done()
			l.one(ctx, i, rand.New(rand.NewPCG(l.seed, uint64(100+i))))
		}()
	}
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		l.meddle(ctx, rand.New(rand.NewPCG(l.seed, 99)))
	}()
}

func (l *load) wait() { l.wg.Wait() }

func (l *load) api() pb.ClusterServiceClient { return pb.NewClusterServiceClient(l.client) }

func (l *load) record(o op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history = append(l.history, o)
}

// one is a client: it submits, sometimes stops what it submitted, and thinks between.
func (l *load) one(ctx context.Context, id int, rng *rand.Rand) {
	before := ""
	for n := 0; ctx.Err() == nil; n++ {
		request := fmt.Sprintf("chaos-%d-%d-%d", l.seed, id, n)
		spec := l.spec(rng, before)
		job := l.submit(ctx, request, spec)
		before = job
		if job != "" && rng.IntN(4) == 0 {
			wait(ctx, time.Duration(rng.Int64N(int64(thinkMax))))
			l.stop(ctx, job)
		}
		wait(ctx, time.Duration(rng.Int64N(int64(thinkMax))))
		l.holdBack(ctx)
	}
}

// holdBack waits while the cluster is behind, so that the run can settle in bounded time.
func (l *load) holdBack(ctx context.Context) {
	for ctx.Err() == nil {
		opCtx, cancel := context.WithTimeout(ctx, opTimeout)
		status, err := l.client.GetStatus(opCtx, &pb.GetStatusRequest{})
		cancel()
		if err != nil || status.JobsPending+status.JobsRunning < openJobsMax {
			return
		}
		wait(ctx, thinkMax)
	}
}

func (l *load) submit(ctx context.Context, request string, spec *pb.JobSpec) string {
	opCtx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	answer, err := l.client.SubmitJob(opCtx, &pb.SubmitJobRequest{RequestId: request, Spec: spec})
	o := op{kind: "submit", request: request, world: int(spec.Roles[0].Count)}
	o.outcome, o.err = judgeOutcome(err)
	if err == nil {
		o.job = answer.JobId
	}
	l.record(o)
	return o.job
}

func (l *load) stop(ctx context.Context, job string) {
	opCtx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	_, err := l.client.StopJob(opCtx, &pb.StopJobRequest{JobId: job, Reason: "chaos"})
	o := op{kind: "stop", job: job}
	o.outcome, o.err = judgeOutcome(err)
	l.record(o)
}

// judgeOutcome sorts an error: what is surely not applied failed, all else is unknown.
func judgeOutcome(err error) (outcome, string) {
	if err == nil {
		return acked, ""
	}
	switch fault.Kind(err) {
	case pb.ErrorKind_ERROR_KIND_INVALID, pb.ErrorKind_ERROR_KIND_NOT_FOUND, pb.ErrorKind_ERROR_KIND_CONFLICT,
		pb.ErrorKind_ERROR_KIND_NO_CAPACITY, pb.ErrorKind_ERROR_KIND_DENIED:
		return failed, err.Error()
	}
	return unknown, err.Error()
}

func (l *load) count(r *report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.history {
		switch o.outcome {
		case acked:
			r.AckedOps++
			r.Acked[o.kind]++
		case failed:
			r.FailedOps++
		default:
			r.UnknownOps++
		}
	}
}
