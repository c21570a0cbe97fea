package cluster_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"llmos/fsm/state"
	"llmos/proto/client"
	"llmos/test/cluster"
)

// The size of the storm: so many submits from so many clients. They come in waves of equal
// size; in the middle of every wave but the last the leader is killed.
const (
	stormSubmits = 500
	stormClients = 8
	stormKills   = 4
	wave         = stormSubmits / (stormKills + 1)
)

// TestSubmitStorm kills the leader again and again while eight clients submit. A submit
// that was acknowledged is there, once; keys that are sent again give the same job; all
// servers have the same state.
func TestSubmitStorm(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, 3)
	storm := &storm{t: t, jobs: map[string]string{}, ended: make(chan struct{}, stormSubmits)}
	permits := make(chan struct{}, stormSubmits)
	var clients sync.WaitGroup
	for i := range stormClients {
		api := c.NewClient()
		clients.Go(func() {
			for n := i; n < stormSubmits; n += stormClients {
				<-permits
				storm.submit(api, n)
			}
		})
	}
	terms := map[uint64]bool{}
	for range stormKills {
		for range wave {
			permits <- struct{}{}
		}
		for range wave / 2 {
			<-storm.ended
		}
		leader := c.Leader()
		terms[termOf(leader)] = true
		c.Kill(leader)
		c.Leader() // of the two that remain
		leader.Start()
		for range wave - wave/2 {
			<-storm.ended
		}
	}
	for range stormSubmits - stormKills*wave {
		permits <- struct{}{}
	}
	clients.Wait()
	if len(terms) != stormKills {
		t.Errorf("%d leaders were killed in %d terms", stormKills, len(terms))
	}
	s := c.WaitSame()
	storm.judge(s)
	storm.repeat(c.NewClient(), c)
	if again := c.WaitSame(); again.Hash() != s.Hash() {
		t.Error("repeated requests changed the state")
	}
}

type storm struct {
	t     *testing.T
	ended chan struct{} // one for each submit that has ended

	mu   sync.Mutex
	jobs map[string]string // key to the acknowledged job
}

// submit sends the request number n until it is acknowledged.
func (s *storm) submit(api *client.Client, n int) {
	ctx, cancel := context.WithTimeout(context.Background(), cluster.Patience)
	defer cancel()
	key := fmt.Sprintf("r-%d", n)
	resp, err := api.SubmitJob(ctx, request(key, job(fmt.Sprintf("job%d", n), 1, 1, 0)))
	if err != nil {
		s.t.Errorf("submit %s: %v", key, err)
	}
	s.mu.Lock()
	s.jobs[key] = resp.GetJobId()
	s.mu.Unlock()
	s.ended <- struct{}{}
}

// judge compares what was acknowledged with what is there.
func (s *storm) judge(st *state.State) {
	s.t.Helper()
	keys := map[string]string{}
	for j := range st.Jobs() {
		if other, ok := keys[j.RequestId]; ok {
			s.t.Errorf("request %s made two jobs, %s and %s", j.RequestId, other, j.Id)
		}
		keys[j.RequestId] = j.Id
	}
	for key, id := range s.jobs {
		if keys[key] != id {
			s.t.Errorf("request %s was acknowledged as job %s, and is job %q", key, id, keys[key])
		}
	}
	if len(keys) != len(s.jobs) {
		s.t.Errorf("%d jobs are there, %d were acknowledged", len(keys), len(s.jobs))
	}
}

// repeat sends a part of the keys again.
func (s *storm) repeat(api *client.Client, c *cluster.Cluster) {
	s.t.Helper()
	for n := 0; n < stormSubmits; n += 25 {
		key := fmt.Sprintf("r-%d", n)
		resp, err := api.SubmitJob(c.Context(), request(key, job(fmt.Sprintf("job%d", n), 1, 1, 0)))
		if err != nil || resp.JobId != s.jobs[key] || !resp.RepeatedRequest {
			s.t.Errorf("request %s again: %v, %v, want job %s", key, resp, err, s.jobs[key])
		}
	}
}
