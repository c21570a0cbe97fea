package telemetry_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"llmos/server/telemetry"
)

// at is a rank that last moved so many seconds before the look, at 1,000 s.
func at(rank int32, step int64, secondsAgo int64) telemetry.Rank {
	return telemetry.Rank{Rank: rank, Step: step, Steps: 1000, MovedMS: (1000 - secondsAgo) * 1000, PaceMS: 1000}
}

func TestStalls(t *testing.T) {
	slow := func(r telemetry.Rank) telemetry.Rank { r.PaceMS = 60_000; return r }
	for _, c := range []struct {
		name  string
		ranks []telemetry.Rank
		want  string
	}{
		{"nobody tells", nil, ""},
		{"all move", []telemetry.Rank{at(0, 120, 1), at(1, 119, 2), at(2, 120, 0)}, ""},
		{"one has fallen behind while the others move", []telemetry.Rank{at(0, 200, 0), at(1, 120, 80), at(2, 201, 0)}, "1 at 120 of 201"},
		{"one holds up all others, which wait for it", []telemetry.Rank{at(0, 120, 45), at(1, 119, 46), at(2, 120, 45)}, "1 at 119 of 120"},
		{"two do", []telemetry.Rank{at(0, 120, 45), at(1, 119, 46), at(2, 119, 46)}, "1 at 119 of 120; 2 at 119 of 120"},
		{"not for long yet", []telemetry.Rank{at(0, 120, 20), at(1, 119, 21)}, ""},
		{"long, but not for steps as slow as these", []telemetry.Rank{slow(at(0, 120, 300)), slow(at(1, 119, 310))}, ""},
		{"all at one step, for long", []telemetry.Rank{at(0, 120, 200), at(1, 120, 201)}, "-1 at 120 of 120"},
		{"all at one step, as when they save themselves", []telemetry.Rank{at(0, 120, 90), at(1, 120, 90)}, ""},
		{"one alone, for long", []telemetry.Rank{at(0, 120, 200)}, "-1 at 120 of 120"},
		{"done", []telemetry.Rank{at(0, 1000, 500), at(1, 1000, 500)}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, s := range telemetry.Judge(c.ranks, 1_000_000) {
				got = append(got, fmt.Sprintf("%d at %d of %d", s.Rank, s.Step, s.FrontStep))
			}
			if text := strings.Join(got, "; "); text != c.want {
				t.Errorf("got %q, want %q", text, c.want)
			}
		})
	}
}

// Whoever is at the front is never to blame, and who is blamed has not moved for a while.
func TestOnlyTheLateAreBlamed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ranks []telemetry.Rank
		front := int64(0)
		for i := range rapid.Int32Range(0, 6).Draw(t, "ranks") {
			r := at(i, rapid.Int64Range(1, 5).Draw(t, "step"), rapid.Int64Range(0, 400).Draw(t, "ago"))
			front = max(front, r.Step)
			ranks = append(ranks, r)
		}
		for _, s := range telemetry.Judge(ranks, 1_000_000) {
			if s.Rank >= 0 && (s.Step == front || s.SinceMs > 1_000_000-30_000) {
				t.Fatalf("%v of %v", s, ranks)
			}
		}
	})
}
