package agent

import (
	"fmt"
	"testing"

	pb "llmos/proto/llmos/v1"
)

func reported(id string, state pb.TaskState) *pb.TaskReport {
	return &pb.TaskReport{TaskId: id, State: state}
}

func shown(m *pb.Reports) string {
	if m == nil {
		return "none"
	}
	out := fmt.Sprint(m.GetSeq())
	for _, r := range m.GetReports() {
		out += fmt.Sprintf(" %s:%d", r.GetTaskId(), r.GetState())
	}
	return out
}

func TestOutboxKeepsUntilAcknowledged(t *testing.T) {
	o := newOutbox()
	expect := func(what, want string) {
		t.Helper()
		if got := shown(o.take()); got != want {
			t.Fatalf("%s: %s, want %s", what, got, want)
		}
	}
	expect("empty", "none")
	o.put(reported("b", running))
	o.put(reported("a", running))
	expect("both at once", "1 a:2 b:2")
	expect("sent once", "none")
	o.put(reported("a", failed))
	expect("newer", "2 a:4")
	if done := o.acknowledge(1); len(done) != 1 || done[0].GetTaskId() != "b" {
		t.Fatalf("acknowledged %v: an old sequence must not confirm the newer report", done)
	}
	o.reconnected()
	expect("again after a reconnect, counted from 1", "1 a:4")
	if done := o.acknowledge(1); len(done) != 1 || done[0].GetState() != failed {
		t.Fatalf("acknowledged %v", done)
	}
	o.reconnected()
	expect("nothing left", "none")
	for i := range reportsPerMessage + 1 {
		o.put(reported(fmt.Sprintf("t%05d", i), running))
	}
	if n := len(o.take().GetReports()); n != reportsPerMessage {
		t.Fatalf("%d reports in one message", n)
	}
	<-o.reports
	if n := len(o.take().GetReports()); n != 1 {
		t.Fatalf("%d reports in the second message", n)
	}
}

func TestOutboxLimitsWhatIsUnacknowledged(t *testing.T) {
	o := newOutbox()
	for i := range unackedMax {
		o.put(reported(fmt.Sprint("t", i), running))
		if o.take() == nil {
			t.Fatalf("message %d was held back", i)
		}
	}
	o.put(reported("late", running))
	if m := o.take(); m != nil {
		t.Fatalf("%d messages are on their way", unackedMax+1)
	}
	select {
	case <-o.reports:
	default:
	}
	o.acknowledge(1)
	select {
	case <-o.reports:
	default:
		t.Fatal("an acknowledgement makes room and wakes nobody")
	}
	if got := shown(o.take()); got != fmt.Sprintf("%d late:2", unackedMax+1) {
		t.Fatalf("then %s", got)
	}
	// An acknowledgement of what was never sent confirms nothing that comes later.
	o.acknowledge(1 << 40)
	o.put(reported("later", running))
	if o.take() == nil || o.unacknowledged() != 1 {
		t.Fatal("the sequence has been upset")
	}
}

func TestCandidatesComeOnceAndTheLeaderFirst(t *testing.T) {
	var saves int
	b := &addressBook{join: []string{"a", "b"}, gossip: func() []string { return []string{"b", "c"} }, log: quiet,
		save: func([]string) error { saves++; return nil }}
	b.learn([]string{"d", "a"})
	b.learn([]string{"a", "d"})
	if saves != 1 {
		t.Errorf("saved %d times", saves)
	}
	b.setLeader("c")
	got := b.candidates()
	seen := map[string]bool{}
	for _, addr := range got {
		seen[addr] = true
	}
	if len(got) != 4 || len(seen) != 4 || got[0] != "c" {
		t.Errorf("candidates %v", got)
	}
}
