package server

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// world writes a sighting as text: "v" voter, "n" non-voter, "-" no member; then "+" healthy
// or "!" not, and how many seconds that has been so; "@addr" where gossip sees it, "@" nowhere.
func world(text string) sighting {
	s := sighting{Self: "a", Gossip: map[string]string{}, Health: map[string]health{}, Last: 1000, Stable: 10 * time.Second, Dead: 600 * time.Second}
	for _, word := range strings.Fields(text) {
		var id, kind, where string
		var seconds int
		var ok byte
		parts := strings.SplitN(word, "@", 2)
		where = parts[1]
		head := strings.SplitN(parts[0], ":", 2)
		id, kind = head[0], head[1][:1]
		ok = head[1][1]
		fmt.Sscanf(head[1][2:], "%d", &seconds)
		if kind != "-" {
			s.Members = append(s.Members, member{ID: id, Addr: strings.ToLower(id[:1]) + "1", Voter: kind == "v"})
		}
		if where != "" {
			s.Gossip[id] = where
		}
		if id != s.Self {
			s.Health[id] = health{OK: ok == '+', For: time.Duration(seconds) * time.Second, Applied: 990}
		}
	}
	return s
}

func TestDecide(t *testing.T) {
	for _, row := range []struct{ name, world, want string }{
		{"nothing to do", "a:v+0@a1 b:v+9@b1 c:v+9@c1", "nothing"},
		{"a new server comes in without a vote", "a:v+0@a1 b:-+0@b1", "set b b1 nonvoter"},
		{"gossip alone admits nobody", "a:v+0@a1 b:-!5@b1", "nothing"},
		{"not yet stable", "a:v+0@a1 b:n+9@b1", "nothing"},
		{"stable", "a:v+0@a1 b:n+10@b1", "set b b1 voter"},
		{"a server moved", "a:v+0@a1 b:v+3@b2 c:v+3@c1", "set b b2 voter"},
		{"a claim to have moved is not believed", "a:v+0@a1 b:v!3@b2 c:v+3@c1", "nothing"},
		{"a dead voter of three keeps its place", "a:v+0@a1 b:v!9999@ c:v+3@c1", "nothing"},
		{"its replacement is admitted", "a:v+0@a1 b:v!9999@ c:v+3@c1 d:-+0@d1", "set d d1 nonvoter"},
		{"and votes", "a:v+0@a1 b:v!9999@ c:v+3@c1 d:n+10@d1", "set d d1 voter"},
		{"then the dead one goes", "a:v+0@a1 b:v!9999@ c:v+3@c1 d:v+20@d1", "remove b"},
		{"but not before its time", "a:v+0@a1 b:v!599@ c:v+3@c1 d:v+20@d1", "nothing"},
		{"two dead of four: no quorum would be healthy enough to lose one", "a:v+0@a1 b:v!9999@ c:v!9999@ d:v+20@d1", "remove b"},
		{"three dead of four", "a:v+0@a1 b:v!9999@ c:v!9999@ d:v!9999@", "nothing"},
		{"a dead voter of five keeps its place", "a:v+0@a1 b:v!9999@ c:v+3@c1 d:v+3@d1 e:v+3@e1", "nothing"},
		{"a dead one of two keeps its place", "a:v+0@a1 b:v!9999@", "nothing"},
		{"a dead non-voter goes", "a:v+0@a1 b:n!600@", "remove b"},
		{"a successor at the same address", "a:v+0@a1 b:v!3@ c:v+3@c1 B:-+0@b1", "remove b"},
		{"not while the old one answers", "a:v+0@a1 b:v+3@b1 c:v+3@c1 B:-+0@b1", "nothing"},
		{"not when it would break the quorum", "a:v+0@a1 b:v!3@ c:v!3@c1 B:-+0@b1", "nothing"},
		{"the only other of two", "a:v+0@a1 b:v!3@ B:-+0@b1", "remove b"},
	} {
		if got := told(decide(world(row.world))); got != row.want {
			t.Errorf("%s: %s: got %q, want %q", row.name, row.world, got, row.want)
		}
	}
}

func TestLaggingServerWaits(t *testing.T) {
	s := world("a:v+0@a1 b:n+60@b1")
	s.Last = 990 + laggingMax + 1
	if c := decide(s); c != nil {
		t.Errorf("a server %d entries behind: %+v", s.Last-990, c)
	}
	s.Last--
	if c := decide(s); c == nil {
		t.Error("a server that has caught up is not promoted")
	}
}

func told(c *change) string {
	switch {
	case c == nil:
		return "nothing"
	case c.Set != nil && c.Set.Voter:
		return fmt.Sprintf("set %s %s voter", c.Set.ID, c.Set.Addr)
	case c.Set != nil:
		return fmt.Sprintf("set %s %s nonvoter", c.Set.ID, c.Set.Addr)
	}
	return "remove " + c.Remove
}
