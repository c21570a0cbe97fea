package cluster_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"llmos/fsm/state"
	"llmos/proto/client"
	"llmos/test/cluster"
)

// The size of the storm: so many submits from so many clients, during which the leader is
// killed whenever that many have been acknowledged.
const (
	stormSubmits = 500
	stormClients = 8
)

var stormKills = []int64{80, 200, 320, 420}

// TestSubmitStorm kills the leader again and again while eight clients submit. A submit
// that was acknowledged is there, once; keys that are sent again give the same job; all
// servers have the same state.
func TestSubmitStorm(t *testing.T) {
	c := cluster.Start(t, 3)
	storm := &storm{t: t, jobs: map[string]string{}, reached: make(chan struct{}, stormSubmits)}
	ctx := c.Context()
	var clients sync.WaitGroup
	for i := range stormClients {
		api := c.NewClient()
		clients.Go(func() {
			for n := i; n < stormSubmits; n += stormClients {
				key := fmt.Sprintf("r-%d", n)
				resp, err := api.SubmitJob(ctx, request(key, job(fmt.Sprintf("job%d", n), 1, 1, 0)))
				if err != nil {
					t.Errorf("submit %s: %v", key, err)
					storm.reached <- struct{}{}
					continue
				}
				storm.acknowledge(key, resp.JobId)
			}
		})
	}
	terms := map[uint64]bool{}
	for _, at := range stormKills {
		for storm.count.Load() < at && !t.Failed() {
			<-storm.reached
		}
		leader := c.Leader()
		terms[leader.ClusterStatus(ctx, true).Term] = true
		c.Kill(leader)
		c.Leader() // of the two that remain
		leader.Start()
	}
	if storm.count.Load() == stormSubmits {
		t.Error("every submit was acknowledged before the last kill; the storm is too short")
	}
	clients.Wait()
	if len(terms) != len(stormKills) {
		t.Errorf("%d leaders were killed in %d terms", len(stormKills), len(terms))
	}
	s := c.WaitSame()
	storm.judge(s)
	storm.repeat(c.NewClient(), c)
	if again := c.WaitSame(); again.Hash() != s.Hash() {
		t.Error("repeated requests changed the state")
	}
}

type storm struct {
	t       *testing.T
	count   atomic.Int64
	reached chan struct{} // one for each submit that has ended

	mu   sync.Mutex
	jobs map[string]string // key to the acknowledged job
}

func (s *storm) acknowledge(key, id string) {
	s.mu.Lock()
	s.jobs[key] = id
	s.mu.Unlock()
	s.count.Add(1)
	s.reached <- struct{}{}
}

// judge compares what was acknowledged with what is there.
func (s *storm) judge(st *state.State) {
	s.t.Helper()
	if len(s.jobs) != stormSubmits {
		s.t.Errorf("%d submits were acknowledged, want %d", len(s.jobs), stormSubmits)
	}
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
