package fsm

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// history is a log: encoded entries, and the state hash after each.
type history struct {
	entries [][]byte
	hashes  [][32]byte
}

func decode(t rapid.TB, data []byte) *pb.Entry {
	entry := &pb.Entry{}
	if err := proto.Unmarshal(data, entry); err != nil {
		t.Fatal(err)
	}
	return entry
}

func encode(t rapid.TB, entry *pb.Entry) []byte {
	data, err := proto.Marshal(entry)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// replay applies the entries behind f's state and compares the hash after each.
func (h *history) replay(t rapid.TB, f *FSM, what string) {
	for i := int(f.State().Index()); i < len(h.entries); i++ {
		f.Apply(uint64(i+1), decode(t, h.entries[i]))
		if f.State().Hash() != h.hashes[i] {
			t.Fatalf("%s: the hash differs at index %d", what, i+1)
		}
	}
}

// accepted gives the entry without what was refused.
func accepted(entry *pb.Entry, results []*pb.Result) *pb.Entry {
	out := &pb.Entry{TimeMs: entry.TimeMs}
	for i, c := range entry.Commands {
		if results[i].Fault != nil {
			continue
		}
		if plan := c.GetApplyPlan(); plan != nil {
			kept := &pb.ApplyPlan{Claims: plan.Claims}
			for k, e := range plan.Evictions {
				if results[i].Evictions[k].Kind == pb.ErrorKind_ERROR_KIND_UNSPECIFIED {
					kept.Evictions = append(kept.Evictions, e)
				}
			}
			for k, g := range plan.Gangs {
				if results[i].Gangs[k].Fault == nil {
					kept.Gangs = append(kept.Gangs, g)
				}
			}
			c = &pb.Command{Op: &pb.Command_ApplyPlan{ApplyPlan: kept}}
		}
		out.Commands = append(out.Commands, c)
	}
	return out
}

// TestProperties draws random logs and demands: every invariant holds after every entry; a
// state machine that never sees what was refused has the same hash; replay gives the same
// hashes; a snapshot at any index and the rest of the log give the same hashes.
func TestProperties(t *testing.T) {
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		h := &history{}
		f, twin := New(), New()
		var snapshot bytes.Buffer
		cutAt := rapid.IntRange(0, 40).Draw(t, "snapshot at")
		length := rapid.SampledFrom([]int{5, 30, 45, 45}).Draw(t, "entries")
		for i := 1; i <= length; i++ {
			entry := &pb.Entry{TimeMs: int64(1000 * i)}
			for range rapid.IntRange(1, 3).Draw(t, "commands") {
				entry.Commands = append(entry.Commands, drawCommand(t, f.State()))
			}
			data := encode(t, entry)
			results := f.Apply(uint64(i), decode(t, data))
			s := f.State()
			if err := state.Check(s); err != nil {
				t.Fatalf("after entry %d %v: %v", i, entry, err)
			}
			if err := f.Diverged(); err != nil {
				t.Fatal(err)
			}
			twin.Apply(uint64(i), decode(t, encode(t, accepted(entry, results))))
			if twin.State().Hash() != s.Hash() {
				t.Fatalf("entry %d: what was refused left a trace: %v", i, entry)
			}
			h.entries, h.hashes = append(h.entries, data), append(h.hashes, s.Hash())
			if i == cutAt {
				if err := Write(&snapshot, s); err != nil {
					t.Fatal(err)
				}
			}
		}
		h.replay(t, New(), "replay")
		if snapshot.Len() > 0 {
			s, err := Read(&snapshot)
			if err != nil {
				t.Fatal(err)
			}
			if err := state.Check(s); err != nil {
				t.Fatal(err)
			}
			restored := New()
			restored.Restore(s)
			h.replay(t, restored, "snapshot and tail")
		}
		for j := range f.State().Jobs() {
			notice(seen, f.State(), j)
		}
	})
	t.Log(seen)
	for _, what := range []string{"placed", "finished", "lost", "preempted", "claimed", "blocked", "array", "copy placed", "cron copy", "avoids", "used", "waits in a queue", "saved", "takes over"} {
		if seen[what] == 0 { // or the test shows nothing of it
			t.Errorf("the random logs have seen %v, and not one %q", seen, what)
		}
	}
}

// notice counts what random logs have brought about.
func notice(seen map[string]int, s *state.State, j *pb.Job) {
	parent := s.Job(j.Parent)
	for what, is := range map[string]bool{ // unordered: each is counted for itself
		"placed": j.Epoch > 0, "finished": state.JobFinished(j.State), "preempted": j.Preemptions > 0, "resized": j.Resizes > 0,
		"claimed": j.Claim != nil, "blocked": len(j.BlockedBy) > 0, "unblocked": len(j.Spec.After) > 0 && j.ReadyMs > j.SubmittedMs,
		"array": j.Spec.Array != nil, "array ended": j.Spec.Array != nil && state.JobFinished(j.State), "copy placed": j.Parent != "" && j.Epoch > 0,
		"cron copy": parent.GetSpec().GetCron() != nil, "avoids": len(j.Avoid) > 0, "used": j.GpuMilliMs > 0,
		"saved": j.SavedMs > 0, "goes on": s.Attempt(j.Id, j.Epoch).GetResume().GetEpoch() > 0, "takes over": j.Spec.Resume != nil,
		"waits in a queue": j.Spec.Queue != "" && j.State == pb.JobState_JOB_STATE_PENDING,
	} {
		if is {
			seen[what]++
		}
	}
	for _, step := range s.SavedSteps(j.Id) {
		if step.Fault() != "" {
			seen["broken"]++
		}
	}
	for a := range s.Attempts(j.Id) {
		if a.Lost {
			seen["lost"]++
		}
		if int(a.WorldSize) != state.WorldSize(j.Spec) {
			seen["other counts"]++
		}
	}
}
