package server

import (
	"slices"
	"strings"
	"time"
)

// laggingMax is how many entries behind the leader a server may be and still count as caught up.
const laggingMax = 250

// votersMin is the number of voters below which a dead one keeps its place: with it the
// cluster can still say how many failures it has had.
const votersMin = 3

// health is what the leader knows of another server's condition.
type health struct {
	OK      bool          // its last status came in time, from the right certificate
	For     time.Duration // how long OK has had this value
	Applied uint64        // index it had applied
}

// sighting is what the steward decides on: Raft's configuration, gossip, and the answers
// of the servers themselves.
type sighting struct {
	Self    string
	Members []member          // Raft's configuration
	Gossip  map[string]string // server ID to the address it claims; a hint
	Health  map[string]health // by server ID, of members and claimed servers; a claim that is not OK proves nothing
	Last    uint64            // leader's newest index
	Stable  time.Duration     // see Timing.StableAfter
	Dead    time.Duration     // see Timing.DeadAfter
}

// change is one step of membership.
type change struct {
	Set    *member // add, promote, or move to another address
	Remove string  // server ID
	Why    string
}

// decide gives the next change of Raft's configuration, nil when none is due. It is a
// function of what was seen, and in the words of Raft's autopilots: a server that proves
// itself comes in as a non-voter; it becomes a voter once it has been healthy and caught
// up for a while; a voter is removed only when a replacement has its place or its address,
// and never when the voters that remain would lack a healthy quorum.
func decide(s sighting) *change {
	for _, rule := range []func(sighting) *change{moveAddress, admitServer, promote, removeReplaced} {
		if c := rule(s); c != nil {
			return c
		}
	}
	return nil
}

// moveAddress follows a member that answers at another address.
func moveAddress(s sighting) *change {
	for _, m := range s.Members {
		addr, seen := s.Gossip[m.ID]
		if !seen || addr == m.Addr || !s.healthy(m.ID) || s.holder(addr) != nil {
			continue
		}
		return &change{Set: &member{ID: m.ID, Addr: addr, Voter: m.Voter}, Why: "it answers at another address than " + m.Addr}
	}
	return nil
}

// admitServer takes in a server that gossip names and that has shown its certificate. One
// that holds the address of a member is that member's successor: a server whose directory
// was lost comes back with a new ID, and the old one can be nowhere else.
func admitServer(s sighting) *change {
	for _, id := range sortedKeys(s.Gossip) {
		addr := s.Gossip[id]
		if s.member(id) != nil || !s.healthy(id) {
			continue
		}
		old := s.holder(addr)
		if old == nil {
			return &change{Set: &member{ID: id, Addr: addr}, Why: "a new server"}
		}
		if !s.healthy(old.ID) && s.safeToRemove(*old) {
			return &change{Remove: old.ID, Why: "server " + id + " has taken its address " + addr}
		}
	}
	return nil
}

// promote makes a caught-up non-voter a voter.
func promote(s sighting) *change {
	for _, m := range s.Members {
		h := s.Health[m.ID]
		if m.Voter || !h.OK || h.For < s.Stable || h.Applied+laggingMax < s.Last {
			continue
		}
		return &change{Set: &member{ID: m.ID, Addr: m.Addr, Voter: true}, Why: "it is healthy and has caught up"}
	}
	return nil
}

// removeReplaced removes a dead non-voter, or a dead voter of an even number: there a
// voter has joined in its place, and without the dead one fewer make a quorum. From an odd
// number removal would gain nothing, so a dead server keeps its place until it returns.
func removeReplaced(s sighting) *change {
	for _, m := range s.Members {
		h, polled := s.Health[m.ID]
		if m.ID == s.Self || !polled || h.OK || h.For < s.Dead {
			continue
		}
		if !m.Voter {
			return &change{Remove: m.ID, Why: "it has not answered for " + s.Dead.String() + " and has no vote"}
		}
		voters := s.voters()
		if voters%2 == 0 && voters > votersMin && s.safeToRemove(m) {
			return &change{Remove: m.ID, Why: "it has not answered for " + s.Dead.String() + " and a replacement votes"}
		}
	}
	return nil
}

// safeToRemove says whether the voters that remain have a healthy quorum.
func (s sighting) safeToRemove(m member) bool {
	if m.ID == s.Self {
		return false
	}
	if !m.Voter {
		return true
	}
	voters, healthy := 0, 0
	for _, o := range s.Members {
		if !o.Voter || o.ID == m.ID {
			continue
		}
		voters++
		if s.healthy(o.ID) {
			healthy++
		}
	}
	return healthy >= voters/2+1
}

func (s sighting) voters() int {
	n := 0
	for _, m := range s.Members {
		if m.Voter {
			n++
		}
	}
	return n
}

func (s sighting) healthy(id string) bool { return id == s.Self || s.Health[id].OK }

func (s sighting) member(id string) *member {
	i := slices.IndexFunc(s.Members, func(m member) bool { return m.ID == id })
	if i < 0 {
		return nil
	}
	return &s.Members[i]
}

func (s sighting) holder(addr string) *member {
	i := slices.IndexFunc(s.Members, func(m member) bool { return m.Addr == addr })
	if i < 0 {
		return nil
	}
	return &s.Members[i]
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare)
	return keys
}
