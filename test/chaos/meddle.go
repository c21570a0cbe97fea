package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	pb "llmos/proto/llmos/v1"
)

const (
	meddleMin = 300 * time.Millisecond
	meddleMax = 1500 * time.Millisecond
)

// meddle is the operator of a run: it changes the policy and the queue tree, and drains
// nodes, one at a time, until ctx ends.
func (l *load) meddle(ctx context.Context, rng *rand.Rand) {
	drained := ""
	for ctx.Err() == nil {
		switch rng.IntN(3) {
		case 0:
			l.do(ctx, "policy", func(ctx context.Context) error { return l.setPolicy(ctx, policy(rng)) })
		case 1:
			lend, weight := int64(rng.IntN(5)*1000-1), int32(1+rng.IntN(5))
			l.do(ctx, "queues", func(ctx context.Context) error { return l.setQueues(ctx, queueTree(lend, weight)) })
		case 2:
			l.do(ctx, "drain", func(ctx context.Context) (err error) {
				drained, err = l.drainOther(ctx, drained, rng)
				return err
			})
		}
		wait(ctx, meddleMin+time.Duration(rng.Int64N(int64(meddleMax-meddleMin))))
	}
}

// do runs one operation of the operator and records its outcome.
func (l *load) do(ctx context.Context, kind string, act func(context.Context) error) {
	opCtx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	o := op{kind: kind}
	o.outcome, o.err = judgeOutcome(act(opCtx))
	l.record(o)
}

func (l *load) setPolicy(ctx context.Context, config *pb.SchedulerConfig) error {
	_, err := l.api().SetSchedulerConfig(ctx, &pb.SetSchedulerConfigRequest{Config: config})
	return err
}

func (l *load) setQueues(ctx context.Context, queues []*pb.Queue) error {
	_, err := l.api().SetQueues(ctx, &pb.SetQueuesRequest{Queues: queues})
	return err
}

// drainOther gives the drained node back to use, or drains one when none is: for new work
// alone, or with the work on it stopped after a while.
func (l *load) drainOther(ctx context.Context, drained string, rng *rand.Rand) (string, error) {
	if drained != "" {
		_, err := l.api().DrainNode(ctx, &pb.DrainNodeRequest{NodeId: drained, Undo: true})
		if err != nil {
			return drained, err
		}
		return "", nil
	}
	nodes, err := l.client.ListNodes(ctx, &pb.ListNodesRequest{})
	if err != nil || len(nodes.Nodes) == 0 {
		return "", err
	}
	id := nodes.Nodes[rng.IntN(len(nodes.Nodes))].Node.Id
	// It may have been drained although the answer was lost: then the next turn undoes it.
	_, err = l.api().DrainNode(ctx, &pb.DrainNodeRequest{NodeId: id, StopAfterMs: int64(rng.IntN(2) * 300), Reason: "chaos"})
	return id, err
}

// prepare sets the queue tree and the policy that a run starts with.
func (l *load) prepare(ctx context.Context) error {
	if err := l.setQueues(ctx, queueTree(-1, 1)); err != nil {
		return fmt.Errorf("make the queues: %w", err)
	}
	if err := l.setPolicy(ctx, &pb.SchedulerConfig{HoldAfterMs: holdAfterMS, MinRunMs: 1, ElasticEveryMs: elasticEveryMS, ClaimMs: claimMS}); err != nil {
		return fmt.Errorf("set the policy: %w", err)
	}
	return nil
}

// undrain makes every node take work again.
func (l *load) undrain(ctx context.Context) error {
	nodes, err := l.client.ListNodes(ctx, &pb.ListNodesRequest{})
	if err != nil {
		return fmt.Errorf("list the nodes: %w", err)
	}
	for _, n := range nodes.Nodes {
		if n.Node.Drain == nil {
			continue
		}
		if _, err := l.api().DrainNode(ctx, &pb.DrainNodeRequest{NodeId: n.Node.Id, Undo: true}); err != nil {
			return fmt.Errorf("give node %s back to use: %w", n.Node.Name, err)
		}
	}
	return nil
}
