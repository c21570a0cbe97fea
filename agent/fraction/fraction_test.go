package fraction

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const gib = 1 << 30

func TestJudge(t *testing.T) {
	a, b := Key{"a.e1.r0", "GPU-1"}, Key{"b.e1.r0", "GPU-1"}
	other := Key{"a.e1.r0", "GPU-2"}
	grants := []Grant{{a, 10 * gib}, {b, 10 * gib}}
	both := append([]Grant{{other, 10 * gib}}, grants...)
	over := []Holding{{a, 7 * gib}, {a, 5 * gib}, {b, 9 * gib}}
	for _, c := range []struct {
		name   string
		grants []Grant
		looks  [][]Holding // nil: the look failed
		want   string
	}{
		{"the sum of its processes, seen twice", grants, [][]Holding{over, over}, "; a.e1.r0: used 12 GiB of device GPU-1, 10 GiB were granted"},
		{"once is not enough", grants, [][]Holding{over, {{a, 9 * gib}}, over}, "; ; "},
		{"a look that failed begins anew", grants, [][]Holding{over, nil, over}, "; ; "},
		{"a look that saw nothing begins anew", grants, [][]Holding{over, {}, over}, "; ; "},
		{"within the slack", grants, [][]Holding{{{a, 10*gib + SlackBytes}}, {{a, 10*gib + SlackBytes}}}, "; "},
		{"a byte beyond the slack", grants, [][]Holding{{{a, 10*gib + SlackBytes + 1}}, {{a, 10*gib + SlackBytes + 1}}},
			"; a.e1.r0: used 10.5 GiB of device GPU-1, 10 GiB were granted"},
		{"neighbours apart", grants, [][]Holding{{{a, 6 * gib}, {b, 6 * gib}}, {{a, 6 * gib}, {b, 6 * gib}}}, "; "},
		{"another device", grants, [][]Holding{{{other, 70 * gib}}, {{other, 70 * gib}}}, "; "},
		{"a stranger", grants, [][]Holding{{{Key{"", "GPU-1"}, 70 * gib}}, {{Key{"", "GPU-1"}, 70 * gib}}}, "; "},
		{"no grant", nil, [][]Holding{over, over}, "; "},
		{"a grant that says nothing", []Grant{{a, 0}}, [][]Holding{over, over}, "; "},
		{"two devices, once", both, [][]Holding{append([]Holding{{other, 20 * gib}}, over...), append([]Holding{{other, 20 * gib}}, over...)},
			"; a.e1.r0: used 12 GiB of device GPU-1, 10 GiB were granted"},
		{"first on one device, then on the other", both, [][]Holding{over, {{other, 20 * gib}}}, "; "},
	} {
		t.Run(c.name, func(t *testing.T) {
			var counted Over
			var got []string
			for _, look := range c.looks {
				var end []Excess
				if look == nil {
					counted = nil
				} else {
					counted, end = Judge(counted, c.grants, look)
				}
				var words []string
				for _, e := range end {
					words = append(words, e.TaskID+": "+e.Reason())
				}
				got = append(got, strings.Join(words, ", "))
			}
			if s := strings.Join(got, "; "); s != c.want {
				t.Errorf("%q, want %q", s, c.want)
			}
		})
	}
}

func TestReasonOfSmallSizes(t *testing.T) {
	e := Excess{Key: Key{"t", "d"}, Used: 1288490188, Granted: 256<<20 + 1<<19}
	if got, want := e.Reason(), "used 1.2 GiB of device d, 256.5 MiB were granted"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestNobodyIsEndedWithinHisGrant: whatever the looks say, only tasks that were beyond
// their own grant in the last LooksMin looks are ended, and the order of a look is nothing.
func TestNobodyIsEndedWithinHisGrant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.Custom(func(t *rapid.T) Key {
			return Key{fmt.Sprint("t", rapid.IntRange(0, 3).Draw(t, "task")), fmt.Sprint("d", rapid.IntRange(0, 1).Draw(t, "device"))}
		})
		var grants []Grant
		for _, k := range rapid.SliceOfDistinct(key, func(k Key) Key { return k }).Draw(t, "granted") {
			grants = append(grants, Grant{k, int64(rapid.IntRange(0, 4).Draw(t, "GiB")) * gib})
		}
		var counted Over
		beyond := map[Key]int{}
		for range rapid.IntRange(1, 6).Draw(t, "looks") {
			var look []Holding
			sum := map[Key]int64{}
			for range rapid.IntRange(0, 8).Draw(t, "processes") {
				h := Holding{key.Draw(t, "of"), int64(rapid.IntRange(0, 3).Draw(t, "GiB")) * gib}
				look, sum[h.Key] = append(look, h), sum[h.Key]+h.Bytes
			}
			now := map[Key]int{}
			for _, g := range grants {
				if g.Bytes > 0 && sum[g.Key] > g.Bytes+SlackBytes {
					now[g.Key] = beyond[g.Key] + 1
				}
			}
			beyond = now
			shuffled := rapid.Permutation(look).Draw(t, "order")
			_, again := Judge(counted, grants, shuffled)
			var end []Excess
			counted, end = Judge(counted, grants, look)
			if fmt.Sprint(end) != fmt.Sprint(again) {
				t.Fatalf("%v, in another order %v", end, again)
			}
			ended := map[string]bool{}
			for _, e := range end {
				if beyond[e.Key] < LooksMin || ended[e.TaskID] {
					t.Fatalf("%v is ended after %d looks beyond its grant", e, beyond[e.Key])
				}
				ended[e.TaskID] = true
			}
			for k, n := range beyond {
				if n >= LooksMin && !ended[k.TaskID] {
					t.Fatalf("%v is not ended", k)
				}
			}
		}
	})
}
