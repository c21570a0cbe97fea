package gossip

import (
	"encoding/json"
	"testing"

	"github.com/hashicorp/memberlist"
)

func node(t *testing.T, id string, m wireMeta) *memberlist.Node {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &memberlist.Node{Name: id, Meta: b}
}

func TestDelegateAdmitsItsCluster(t *testing.T) {
	d := &delegate{roster: map[string]Member{}, id: "n-1", cluster: "c-1"}
	mine, other := node(t, "n-2", wireMeta{Cluster: "c-1"}), node(t, "n-3", wireMeta{Cluster: "c-2"})
	garbage := &memberlist.Node{Name: "n-4", Meta: []byte("{")}
	if err := d.NotifyMerge([]*memberlist.Node{mine, mine}); err != nil {
		t.Error(err)
	}
	for _, bad := range []*memberlist.Node{other, garbage, {Name: "n-5"}} {
		if d.NotifyAlive(bad) == nil {
			t.Errorf("%s is admitted", bad.Name)
		}
		if d.NotifyMerge([]*memberlist.Node{mine, bad}) == nil {
			t.Errorf("a merge with %s is admitted", bad.Name)
		}
	}
}

func TestDelegateTellsLeavingFromFailing(t *testing.T) {
	e := newEvents()
	defer e.close()
	d := &delegate{roster: map[string]Member{}, id: "n-1", cluster: "c-1", events: e}
	leaving := node(t, "n-2", wireMeta{Cluster: "c-1", Leaving: true})
	d.NotifyJoin(node(t, "n-1", wireMeta{Cluster: "c-1"})) // itself: no event
	d.NotifyJoin(node(t, "n-2", wireMeta{Cluster: "c-1"}))
	d.NotifyUpdate(leaving) // only the mark: no event
	d.NotifyLeave(leaving)
	d.NotifyLeave(node(t, "n-3", wireMeta{Cluster: "c-1"}))
	for _, want := range []Event{{Joined, Member{ID: "n-2"}}, {Left, Member{ID: "n-2"}}, {Failed, Member{ID: "n-3"}}} {
		got := <-e.out
		if got.Kind != want.Kind || got.Member.ID != want.Member.ID {
			t.Errorf("event is %s %s, want %s %s", got.Member.ID, got.Kind, want.Member.ID, want.Kind)
		}
	}
}
