package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sort"
	"sync"
	"time"

	"llmos/agent/checkpoint"
	pb "llmos/proto/llmos/v1"
)

const (
	fetchPauseMin = time.Second // after a copy could not be fetched
	fetchPauseMax = time.Minute
)

// vault holds the node's checkpoints: what its tasks saved, until the servers have recorded it, and
// what the servers want held here. Safe for concurrent use.
type vault struct {
	store  *checkpoint.Store
	outbox *outbox
	nodeID string
	open   openSource
	now    func() time.Time
	log    *slog.Logger

	mu       sync.Mutex
	holdings map[checkpoint.Key]*pb.Holding // as the servers said last; nil before they did
	acked    map[checkpoint.Key]bool        // what the servers have recorded of what is held
	pins     map[checkpoint.Digest]int      // content that is being staged
	retry    map[checkpoint.Digest]pause    // of copies that could not be fetched
	changed  chan struct{}                  // closed at the next acknowledgement
	wake     chan struct{}                  // has a token when there may be copies to fetch
}

// pause is when a fetch is tried again, and how long the wait was.
type pause struct {
	until time.Time
	last  time.Duration
}

// openSource begins the stream of content at another node.
type openSource func(ctx context.Context, from *pb.CheckpointSource, d checkpoint.Digest, offset int64) (io.ReadCloser, error)

// newVault opens the store and queues a report of all that it holds: an earlier run of the agent may
// have ended before its own was recorded.
func newVault(dir, nodeID string, o *outbox, open openSource, log *slog.Logger) (*vault, error) {
	store, err := checkpoint.OpenStore(dir)
	if err != nil {
		return nil, homeFault(dir, err)
	}
	v := &vault{store: store, outbox: o, nodeID: nodeID, open: open, now: time.Now, log: log, acked: map[checkpoint.Key]bool{},
		pins: map[checkpoint.Digest]int{}, retry: map[checkpoint.Digest]pause{}, changed: make(chan struct{}), wake: make(chan struct{}, 1)}
	for _, ref := range store.Refs() {
		v.report(ref)
	}
	return v, nil
}

func keyOf(c *pb.Checkpoint) checkpoint.Key {
	return checkpoint.Key{Job: c.GetJobId(), Epoch: c.GetEpoch(), Step: c.GetStep(), Rank: c.GetRank()}
}

func recordOf(r checkpoint.Ref) *pb.Checkpoint {
	return &pb.Checkpoint{JobId: r.Job, Epoch: r.Epoch, Step: r.Step, Rank: r.Rank, Name: r.Name, ManifestSha256: r.Digest[:],
		SizeBytes: r.Size, Files: int32(r.Files), SavedMs: r.SavedMS}
}

// report tells the servers that a checkpoint is held here.
func (v *vault) report(ref checkpoint.Ref) {
	v.mu.Lock()
	delete(v.acked, ref.Key)
	v.mu.Unlock()
	v.outbox.putCheckpoint(&pb.CheckpointReport{Checkpoint: recordOf(ref)})
}

// refuse tells the servers, and by them the user, why something that a task saved is not taken.
func (v *vault) refuse(key checkpoint.Key, name, why string) {
	v.log.Warn("a checkpoint is refused", "job", key.Job, "rank", key.Rank, "name", name, "reason", why)
	v.outbox.putCheckpoint(&pb.CheckpointReport{Checkpoint: &pb.Checkpoint{JobId: key.Job, Epoch: key.Epoch, Step: key.Step, Rank: key.Rank,
		Name: name, Fault: why}})
}

// lose removes content that is broken and tells the servers that it is not held any more.
func (v *vault) lose(d checkpoint.Digest, why string) {
	for _, ref := range v.store.Lose(d) {
		v.log.Warn("a checkpoint is lost", "checkpoint", ref.Key, "reason", why)
		v.outbox.putCheckpoint(&pb.CheckpointReport{Checkpoint: recordOf(ref), Lost: true, Reason: why})
	}
}

// acknowledged takes in that the servers have recorded reports.
func (v *vault) acknowledged(reports []*pb.CheckpointReport) {
	if len(reports) == 0 {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range reports {
		if !r.GetLost() && len(r.GetCheckpoint().GetManifestSha256()) > 0 { // what was lost or refused is not held
			v.acked[keyOf(r.GetCheckpoint())] = true
		}
	}
	close(v.changed)
	v.changed = make(chan struct{})
}

// recorded waits until the servers have recorded what was reported of a key, or ctx ends.
func (v *vault) recorded(ctx context.Context, key checkpoint.Key) {
	for {
		v.mu.Lock()
		done, changed := v.acked[key], v.changed
		v.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// hold takes in what the servers want held here. What is recorded and not among it goes: a message
// comes behind the acknowledgements that it knows of, so that nothing goes by mistake.
func (v *vault) hold(h *pb.Holdings) {
	v.mu.Lock()
	v.holdings = make(map[checkpoint.Key]*pb.Holding, len(h.GetHoldings()))
	for _, one := range h.GetHoldings() {
		v.holdings[keyOf(one.GetCheckpoint())] = one
	}
	v.mu.Unlock()
	v.tidy()
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// tidy drops what the servers have recorded and do not want here.
func (v *vault) tidy() {
	for _, ref := range v.store.Refs() {
		v.mu.Lock()
		one, wanted := v.holdings[ref.Key]
		wanted = wanted && string(one.GetCheckpoint().GetManifestSha256()) == string(ref.Digest[:])
		drop := v.holdings != nil && !wanted && v.acked[ref.Key] && v.pins[ref.Digest] == 0
		if drop {
			delete(v.acked, ref.Key)
		}
		v.mu.Unlock()
		if drop {
			v.store.Drop(ref.Key)
		}
	}
}

// pin keeps content from being dropped until the function that it gives is called.
func (v *vault) pin(d checkpoint.Digest) (release func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.pins[d]++
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.pins[d]--; v.pins[d] == 0 {
			delete(v.pins, d)
		}
	}
}

// mayRead says whether the servers have named a node as a reader of content.
func (v *vault) mayRead(d checkpoint.Digest, nodeID string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, one := range v.holdings {
		if string(one.GetCheckpoint().GetManifestSha256()) == string(d[:]) && slices.Contains(one.GetReaders(), nodeID) {
			return true
		}
	}
	return false
}

// run fetches the copies that the servers want here until ctx ends.
func (v *vault) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if next := v.fulfil(ctx); !next.IsZero() {
			timer.Reset(max(next.Sub(v.now()), 0))
		}
		select {
		case <-ctx.Done():
			return
		case <-v.wake:
		case <-timer.C:
		}
	}
}

// fulfil goes through what should be held once, and gives when a fetch that failed is to be tried
// again.
func (v *vault) fulfil(ctx context.Context) (next time.Time) {
	for _, one := range v.wanted() {
		if ctx.Err() != nil {
			return next
		}
		d, err := checkpoint.DigestOf(one.GetCheckpoint().GetManifestSha256())
		if err != nil {
			continue
		}
		if v.has(one, d) {
			continue
		}
		v.mu.Lock()
		wait := v.retry[d]
		v.mu.Unlock()
		if v.now().Before(wait.until) {
			next = earlier(next, wait.until)
			continue
		}
		if err = v.fetch(ctx, one, d); err == nil {
			v.mu.Lock()
			delete(v.retry, d)
			v.mu.Unlock()
			continue
		}
		wait.last = min(max(2*wait.last, fetchPauseMin), fetchPauseMax)
		wait.until = v.now().Add(wait.last)
		v.mu.Lock()
		v.retry[d] = wait
		v.mu.Unlock()
		next = earlier(next, wait.until)
		v.log.Warn("a copy of a checkpoint could not be fetched", "checkpoint", keyOf(one.GetCheckpoint()), "error", err)
	}
	return next
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// wanted lists the holdings by key.
func (v *vault) wanted() []*pb.Holding {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]*pb.Holding, 0, len(v.holdings))
	for _, one := range v.holdings {
		out = append(out, one)
	}
	sort.Slice(out, func(i, k int) bool {
		a, b := out[i].GetCheckpoint(), out[k].GetCheckpoint()
		if a.GetSavedMs() != b.GetSavedMs() {
			return a.GetSavedMs() > b.GetSavedMs() // the newest is worth most
		}
		return keyOf(a).String() < keyOf(b).String()
	})
	return out
}

// has reports whether a holding needs no fetch, and tells the servers what they do not know of it.
func (v *vault) has(one *pb.Holding, d checkpoint.Digest) bool {
	key := keyOf(one.GetCheckpoint())
	if ref, ok := v.store.Ref(key); ok && ref.Digest == d {
		v.mu.Lock()
		again := !one.GetHeld() && v.acked[key]
		v.mu.Unlock()
		if again {
			v.report(ref)
		}
		return true
	}
	if v.store.Has(d) && v.link(one, d) == nil {
		return true
	}
	if one.GetHeld() { // the servers believe in a copy that is not there
		v.outbox.putCheckpoint(&pb.CheckpointReport{Checkpoint: one.GetCheckpoint(), Lost: true, Reason: "the node has no trace of it"})
	}
	return len(one.GetSources()) == 0
}

// link names content that is there, and tells the servers.
func (v *vault) link(one *pb.Holding, d checkpoint.Digest) error {
	c := one.GetCheckpoint()
	ref := checkpoint.Ref{Key: keyOf(c), Name: c.GetName(), Digest: d, Size: c.GetSizeBytes(), Files: int(c.GetFiles()), SavedMS: c.GetSavedMs()}
	if err := v.store.Link(ref); err != nil {
		return err
	}
	v.report(ref)
	return nil
}

// errNoSource says that there is nobody to fetch a copy from.
var errNoSource = errors.New("no other node holds it")

// fetch gets a copy from one of its sources, in their order.
func (v *vault) fetch(ctx context.Context, one *pb.Holding, d checkpoint.Digest) error {
	var errs []error
	for _, from := range one.GetSources() {
		err := v.store.Fetch(ctx, d, func(ctx context.Context, offset int64) (io.ReadCloser, error) { return v.open(ctx, from, d, offset) })
		if err == nil {
			err = v.link(one, d)
		}
		if err == nil {
			v.log.Info("a copy of a checkpoint is held", "checkpoint", keyOf(one.GetCheckpoint()), "from", from.GetNodeId())
			return nil
		}
		errs = append(errs, fmt.Errorf("from node %s: %w", from.GetNodeId(), err))
	}
	if len(errs) == 0 {
		return errNoSource
	}
	return errors.Join(errs...)
}
