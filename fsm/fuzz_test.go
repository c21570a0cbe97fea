package fsm

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// fuzzGround is a state with something of everything: waiting, running, ending and finished
// jobs, a fenced allocation, a failed device, tokens.
func fuzzGround(t testing.TB) *state.State {
	k := &talk{fsm: New(), timeMS: 1000}
	if real, ok := t.(*testing.T); ok {
		k.t = real
	}
	for _, line := range []string{
		"init c-1", "node n-a gpus=g0,g1", "node n-b gpus=h0,h1:FAILED", "node n-c",
		"submit run count=2 cpu=500 gpus=1 req=r1 retries=1", "plan run-1 1 n-a/g0/20000 n-b/h0", "report n-a RUNNING run-1.e1.r0",
		"submit lost cpu=100 gpus=1 share=500", "plan lost-1 1 n-a/g1", "nodestate n-a SILENT", "lose n-a lost-1.e1.r0",
		"submit end count=2", "plan end-1 1 n-c//20000 n-c", "report n-c FAILED end-1.e1.r1 exit=3",
		"submit done", "plan done-1 1 n-c", "report n-c SUCCEEDED done-1.e1.r0", "submit wait req=r2", "stop end",
		"token t1 role=agent secret=x expires=9000",
		"queues q:1 q/a:2;gpu:1;pending:3", "submit sweep array=3 queue=q/a", "plan sweep-1_1 1 n-c", "submit tick cron=x overlap=replace",
		"submit later after=run:any,sweep:failed", "submit grow count=3 min=1", "plan grow-1 1 n-c counts=1", "plan evict grow-1 1 RESIZE ; claim grow-1 RESIZE n-c n-c until=90000 counts=2",
		"plan claim wait-1 PREEMPT n-a/g1 until=9000", "reserve v1 USE start=9000 end=99000 on=n-a", "drain n-b reason=repair", "policy order=las avoid=100",
		"save n-a run-1.e1.r0 5", "save n-b run-1.e1.r1 5", "submit heir resume=run-1",
	} {
		k.line(line)
	}
	return k.fsm.State()
}

// FuzzApply applies any entry that decodes to a state with something of everything. Nothing
// panics, every invariant holds, refused commands leave no trace, and the state can be
// snapshotted and restored.
func FuzzApply(f *testing.F) {
	for _, line := range []string{
		"init c-2", "node n-a gpus=g0", "node n-d gpus=h0,h1:GONE", "submit new count=3 role=ps:2 gpus=1 share=10 ports=http,grpc req=r3",
		"submit wait req=r2", "plan wait-1 1 n-b", "plan lost-1 2 n-b/h0 ; wait-1 1 n-c", "report n-a SUCCEEDED lost-1.e1.r0 run-1.e1.r0",
		"report n-c STOPPED end-1.e1.r0", "lose n-b run-1.e1.r1", "nodestate n-c LOST", "remove n-a", "remove n-c", "stop run", "stop wait",
		"token t2 role=user secret=y expires=9000", "join t1 secret=x role=agent member=n-z", "collect jobs=9999 requests=9999 tokens=99999 day=9 reservations=99999", "unknown",
		"queues q:1 q/b:3;gpu:2/1/1 remove=q/a", "queues q/a/b:1", "submit x after=sweep,later:any array=2", "fire tick-1 4000", "stop sweep", "stop tick", "stop sweep-1_0 failed=1",
		"plan evict run-1 1 PRIORITY for=wait-1 ; claim wait-1 PREEMPT n-a/g0 n-b/h0 until=9000 ; grow-1 2 n-c n-c counts=2", "lapse wait-1 grow-1", "policy order=fifo",
		"reserve v2 MAINTENANCE start=9000 end=99000 nodes=2", "unreserve v1", "drain n-a stop=9000", "undrain n-b", "init c-1 version=2",
		"save n-a run-1.e1.r0 6 name=x", "save n-c run-1.e1.r0 5", "unsave n-a run-1.e1.r0 5", "prune run-1", "submit next resume=run-1@5 keep=2 ranks=each",
	} {
		w := parseWords(line)
		data, err := proto.Marshal(&pb.Entry{TimeMs: 5000, Commands: []*pb.Command{commands[w.verb](nil, w)}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	ground := fuzzGround(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		entry := &pb.Entry{}
		if proto.Unmarshal(data, entry) != nil {
			return // the server refuses it before
		}
		machine := New()
		machine.Restore(ground)
		results := machine.Apply(ground.Index()+1, entry)
		if len(results) != len(entry.Commands) {
			t.Fatalf("%d results of %d commands", len(results), len(entry.Commands))
		}
		s := machine.State()
		if err := state.Check(s); err != nil {
			t.Fatal(err)
		}
		refused := true
		for _, r := range results {
			refused = refused && r.Fault != nil
		}
		if refused && s.Hash() != ground.Hash() {
			t.Fatal("refused commands left a trace")
		}
		var out bytes.Buffer
		if err := Write(&out, s); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(&out); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzSnapshotRead reads any bytes. Nothing panics, and what is read is written again as the
// same state.
func FuzzSnapshotRead(f *testing.F) {
	var out bytes.Buffer
	if err := Write(&out, fuzzGround(f)); err != nil {
		f.Fatal(err)
	}
	f.Add(out.Bytes())
	f.Add(out.Bytes()[:100])
	f.Add([]byte(snapshotMagic))
	out.Reset()
	if err := Write(&out, state.New()); err != nil {
		f.Fatal(err)
	}
	f.Add(out.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Read(bytes.NewReader(data))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := Write(&again, s); err != nil {
			t.Fatal(err)
		}
		back, err := Read(&again)
		if err != nil || back.Hash() != s.Hash() {
			t.Fatalf("written again it is another state: %v", err)
		}
	})
}

// FuzzRestorer gives the records of a snapshot whose frames and checksum are right.
func FuzzRestorer(f *testing.F) {
	for rec := range fuzzGround(f).Records() {
		data, err := proto.Marshal(rec)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rec := &pb.SnapshotRecord{}
		if proto.Unmarshal(data, rec) != nil {
			return
		}
		r := state.NewRestorer()
		if r.Add(rec) == nil {
			if again := r.Add(rec); again == nil {
				t.Fatal("a record is taken twice")
			}
		}
		_ = state.Check(r.Finish(1, 1)) // it may be violated, and must not panic
	})
}
