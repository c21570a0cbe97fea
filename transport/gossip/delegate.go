package gossip

import (
	"encoding/json"
	"fmt"

	"github.com/hashicorp/memberlist"
)

// delegate is the side of Gossip that memberlist calls, partly under its own lock: nothing
// here blocks or calls back.
type delegate Gossip

var (
	_ memberlist.Delegate         = (*delegate)(nil)
	_ memberlist.EventDelegate    = (*delegate)(nil)
	_ memberlist.MergeDelegate    = (*delegate)(nil)
	_ memberlist.AliveDelegate    = (*delegate)(nil)
	_ memberlist.ConflictDelegate = (*delegate)(nil)
)

// NodeMeta gives what this member says of itself.
func (d *delegate) NodeMeta(limit int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, err := json.Marshal(d.meta)
	if err != nil || len(b) > limit {
		return nil // cannot be: encodeMeta has checked it
	}
	return b
}

// NotifyMsg ignores user messages: none are sent.
func (d *delegate) NotifyMsg([]byte) {}

// GetBroadcasts has nothing to add.
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState has nothing to add.
func (d *delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState ignores what nobody sends.
func (d *delegate) MergeRemoteState([]byte, bool) {}

// NotifyJoin queues the event.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.push(Joined, n) }

// NotifyLeave queues the event: Left when the member had said that it would.
func (d *delegate) NotifyLeave(n *memberlist.Node) {
	if m, err := decodeMeta(n.Meta); err == nil && m.Leaving {
		d.push(Left, n)
		return
	}
	d.push(Failed, n)
}

// NotifyUpdate queues the event, unless the news is only that the member is about to leave.
func (d *delegate) NotifyUpdate(n *memberlist.Node) {
	if m, err := decodeMeta(n.Meta); err == nil && m.Leaving {
		return
	}
	d.push(Updated, n)
}

// push notes the change in the roster and queues its event. memberlist holds the lock of
// its nodes here, so that this is where they may be read.
func (d *delegate) push(kind Kind, n *memberlist.Node) {
	member := memberOf(n)
	d.mu.Lock()
	if kind == Left || kind == Failed {
		delete(d.roster, n.Name)
	} else {
		d.roster[n.Name] = member
	}
	d.mu.Unlock()
	if n.Name != d.id {
		d.events.push(Event{Kind: kind, Member: member})
	}
}

// NotifyMerge refuses to join the members of another cluster.
func (d *delegate) NotifyMerge(peers []*memberlist.Node) error {
	for _, n := range peers {
		if err := d.NotifyAlive(n); err != nil {
			return err
		}
	}
	return nil
}

// NotifyAlive admits members of this cluster alone.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	m, err := decodeMeta(n.Meta)
	if err != nil {
		return fmt.Errorf("member %s: %w", n.Name, err)
	}
	if m.Cluster != d.cluster {
		return fmt.Errorf("member %s belongs to cluster %q, this is %s", n.Name, m.Cluster, d.cluster)
	}
	return nil
}

// NotifyConflict is told of two addresses for one ID; memberlist logs them and keeps the first.
func (d *delegate) NotifyConflict(_, _ *memberlist.Node) {}
