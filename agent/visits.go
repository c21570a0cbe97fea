package agent

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// idleEvery is how often it is looked for tasks that nobody uses.
const idleEvery = 5 * time.Second

// visits remembers when people last used tasks, by commands beside them or connections to
// their ports. A task that nobody has used since this agent began counts from there.
type visits struct {
	now func() time.Time

	mu   sync.Mutex
	last map[string]time.Time // by task ID
}

func newVisits(now func() time.Time) *visits {
	return &visits{now: now, last: map[string]time.Time{}}
}

// note says that somebody uses the task now.
func (v *visits) note(taskID string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last[taskID] = v.now()
}

// idle gives how long each of the tasks has not been used, and forgets all others.
func (v *visits) idle(taskIDs []string) map[string]time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.now()
	out, last := make(map[string]time.Duration, len(taskIDs)), make(map[string]time.Time, len(taskIDs))
	for _, id := range taskIDs {
		at, known := v.last[id]
		if !known {
			at = now
		}
		last[id] = at
		out[id] = now.Sub(at)
	}
	v.last = last
	return out
}

// endIdle ends tasks that are to end when nobody uses them, until ctx ends.
func (v *supervisor) endIdle(ctx context.Context) {
	tick := time.NewTicker(idleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			v.lookIdle()
		}
	}
}

func (v *supervisor) lookIdle() {
	var ids []string
	limits := map[string]time.Duration{}
	for _, t := range v.targets() {
		ids = append(ids, t.id)
		if t.idleAfter > 0 {
			limits[t.id] = t.idleAfter
		}
	}
	for id, idle := range v.visits.idle(ids) { // unordered: each is judged by itself
		if limit := limits[id]; limit > 0 && idle > limit {
			v.post(taskExcess{id: id, reason: fmt.Sprintf("nobody has used it for %s", limit)})
		}
	}
}
