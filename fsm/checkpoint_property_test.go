package fsm

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// savedModel is what should be known of the checkpoints of a job of two ranks that never prunes.
type savedModel struct {
	epoch  uint64
	saved  map[savedAt]map[int32]bool // step -> ranks
	broken map[savedAt]bool
	savers map[int32]bool
}

type savedAt struct {
	epoch uint64
	step  int64
}

// newest is the newest good step.
func (m *savedModel) newest() (best savedAt, found bool) {
	needed := m.savers
	if len(needed) == 0 {
		needed = map[int32]bool{0: true}
	}
	for at, ranks := range m.saved { // unordered: the newest is the same in any order
		good := !m.broken[at]
		for rank := range needed { // unordered: all are needed
			good = good && ranks[rank]
		}
		if good && (!found || at.epoch > best.epoch || at.epoch == best.epoch && at.step > best.step) {
			best, found = at, true
		}
	}
	return best, found
}

// TestSavedProperties holds the state to a model over random lives of a job: what an older attempt
// says is never taken, the same word twice changes nothing, and every attempt goes on from the newest
// good step.
func TestSavedProperties(t *testing.T) {
	resumed, refused, broken := 0, 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		k := newTalk(t)
		for _, line := range []string{"init c-1", "node n-1 cpu=4000", "node n-2 cpu=4000", "submit train count=2 cpu=1000 keep=100 retries=1000", "plan train-1 1 n-1//20000 n-2"} {
			k.line(line)
		}
		m := &savedModel{epoch: 1, saved: map[savedAt]map[int32]bool{}, broken: map[savedAt]bool{}, savers: map[int32]bool{}}
		for range rapid.IntRange(5, 40).Draw(rt, "words") {
			k.timeMS += 10
			switch rapid.IntRange(0, 7).Draw(rt, "what") {
			case 0:
				m.again(rt, k, false)
			case 1:
				if k.fsm.State().Attempt("train-1", m.epoch).Resume != nil {
					m.again(rt, k, true)
					broken++
				}
			default:
				if !m.save(rt, k) {
					refused++
				}
			}
			s := k.fsm.State()
			if err := state.Check(s); err != nil {
				rt.Fatal(err)
			}
			best, found := m.newest()
			if j := s.Job("train-1"); (j.SavedMs > 0) != found || found && j.SavedStep != best.step {
				rt.Fatalf("the job says that step %d is saved, at %d; the model %v %v", j.SavedStep, j.SavedMs, best, found)
			}
			if s.Attempt("train-1", m.epoch).Resume != nil {
				resumed++
			}
		}
	})
	if resumed == 0 || refused == 0 || broken == 0 {
		t.Errorf("%d went on, %d words were refused, %d steps were broken", resumed, refused, broken)
	}
}

// save lets a rank of the newest, an older or a later attempt register a step, twice.
func (m *savedModel) save(t *rapid.T, k *talk) (taken bool) {
	at := savedAt{epoch: m.epoch, step: int64(rapid.IntRange(1, 6).Draw(t, "step"))}
	if chance(t, 30) {
		at.epoch = m.epoch + uint64(rapid.IntRange(0, 2).Draw(t, "other")) - 1
	}
	rank := int32(rapid.IntRange(0, 1).Draw(t, "rank"))
	line := fmt.Sprintf("save n-%d train-1.e%d.r%d %d", rank+1, at.epoch, rank, at.step)
	before := k.fsm.State().Hash()
	answer := k.line(line)
	known := m.saved[at][rank]
	if taken = at.epoch == m.epoch || known; taken != (answer == "ok\n") {
		t.Fatalf("at epoch %d, %s: %s", m.epoch, line, answer)
	}
	after := k.fsm.State().Hash()
	if (!taken || known) && after != before {
		t.Fatalf("%s changed the state: %s", line, answer)
	}
	if k.line(line); k.fsm.State().Hash() != after {
		t.Fatalf("%s changed the state the second time", line)
	}
	if taken {
		if m.saved[at] == nil {
			m.saved[at] = map[int32]bool{}
		}
		m.saved[at][rank], m.savers[rank] = true, true
	}
	return taken
}

// again ends the attempt, with broken because it could not go on from its step, and places the next.
func (m *savedModel) again(t *rapid.T, k *talk, broken bool) {
	more := ""
	if broken {
		r := k.fsm.State().Attempt("train-1", m.epoch).Resume
		m.broken[savedAt{r.Epoch, r.Step}] = true
		more = " resumefailed=1"
	}
	k.line(fmt.Sprintf("report n-1 STOPPED train-1.e%d.r0%s", m.epoch, more))
	k.line(fmt.Sprintf("report n-2 STOPPED train-1.e%d.r1", m.epoch))
	if j := k.fsm.State().Job("train-1"); j.State != pb.JobState_JOB_STATE_PENDING {
		t.Skip("it has failed too often") // and is over
	}
	m.epoch++
	if answer := k.line(fmt.Sprintf("plan train-1 %d n-1//20000 n-2", m.epoch)); answer != "ok\n  train-1 placed\n" {
		t.Fatal(answer)
	}
	best, found := m.newest()
	r := k.fsm.State().Attempt("train-1", m.epoch).Resume
	if (r != nil) != found || found && (r.Epoch != best.epoch || r.Step != best.step) {
		t.Fatalf("attempt %d goes on from %v, and %v is the newest: %v", m.epoch, r, best, found)
	}
}
