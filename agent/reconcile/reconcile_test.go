package reconcile

import (
	"fmt"
	"sort"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	pb "llmos/proto/llmos/v1"
)

var epoch0 = time.Unix(1_700_000_000, 0)

// want makes an assignment from words: "a.e1.r0 stop dev=g1:500 port=20001".
func want(text string) *pb.Assignment {
	words := strings.Fields(text)
	a := &pb.Assignment{Task: &pb.Task{Id: words[0], Desired: pb.TaskDesired_TASK_DESIRED_RUN},
		Role: &pb.RoleSpec{GraceMs: 1000}, Allocation: &pb.Allocation{}}
	parts := strings.Split(words[0], ".")
	a.Task.JobId = parts[0]
	if _, err := fmt.Sscanf(parts[1], "e%d", &a.Task.Epoch); err != nil {
		panic(err)
	}
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "stop":
			a.Task.Desired = pb.TaskDesired_TASK_DESIRED_STOP
		case "dev":
			id, share, _ := strings.Cut(value, ":")
			grant := &pb.DeviceGrant{DeviceId: id, ShareMilli: WholeDevice}
			if share != "" {
				if _, err := fmt.Sscan(share, &grant.ShareMilli); err != nil {
					panic(err)
				}
			}
			a.Allocation.Devices = append(a.Allocation.Devices, grant)
		case "port":
			var port int32
			if _, err := fmt.Sscan(value, &port); err != nil {
				panic(err)
			}
			a.Allocation.Ports = append(a.Allocation.Ports, port)
		}
	}
	return a
}

// sees makes an observation: "running! a.e1.r0 dev=g1"; the mark means unreported, none acknowledged.
func sees(text string) Observed {
	phase, rest, _ := strings.Cut(text, " ")
	o := Observed{Assignment: want(rest), Unreported: strings.HasSuffix(phase, "!")}
	o.Acknowledged = !o.Unreported
	for p := Unproven; p <= Ended; p++ {
		if p.String() == strings.TrimSuffix(phase, "!") {
			o.Phase = p
			if p == Stopping {
				o.StopAt = epoch0
			}
			return o
		}
	}
	panic(phase)
}

func describe(r Result) string {
	var out []string
	for _, a := range r.Actions {
		out = append(out, a.Kind.String()+" "+a.TaskID)
	}
	waiting := []string{}
	for id, why := range r.Waiting {
		waiting = append(waiting, "wait "+id+": "+why)
	}
	sort.Strings(waiting)
	return strings.Join(append(out, waiting...), "\n")
}

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name    string
		unknown bool // no full set has arrived
		want    []string
		seen    []string
		forget  string
		at      time.Duration
		get     string
	}{
		{name: "nothing"},
		{name: "new task", want: []string{"a.e1.r0"}, get: "start a.e1.r0"},
		{name: "new tasks of a gang", want: []string{"a.e1.r0", "a.e1.r1"}, get: "start a.e1.r0\nstart a.e1.r1"},
		{name: "starting is not started again", want: []string{"a.e1.r0"}, seen: []string{"starting a.e1.r0"}},
		{name: "unproven is not started again", want: []string{"a.e1.r0"}, seen: []string{"unproven a.e1.r0"}},
		{name: "running is reported", want: []string{"a.e1.r0"}, seen: []string{"running! a.e1.r0"}, get: "report a.e1.r0"},
		{name: "ended is reported, not started", want: []string{"a.e1.r0"}, seen: []string{"ended! a.e1.r0"}, get: "report a.e1.r0"},
		{name: "acknowledged end stays until forgotten", want: []string{"a.e1.r0"}, seen: []string{"ended a.e1.r0"}},
		{name: "forgotten", seen: []string{"ended a.e1.r0"}, forget: "a.e1.r0", get: "clean a.e1.r0"},
		{name: "acknowledged end of an unknown task", seen: []string{"ended a.e1.r0"}, get: "clean a.e1.r0"},
		{name: "unacknowledged end of an unknown task", seen: []string{"ended! a.e1.r0"}, get: "report a.e1.r0"},
		{name: "acknowledged end before the servers are heard", unknown: true, seen: []string{"ended a.e1.r0"}},
		{name: "a running task is not forgotten", want: []string{"a.e1.r0"}, seen: []string{"running a.e1.r0"}, forget: "a.e1.r0"},
		{name: "forgotten is not started", want: []string{"a.e1.r0"}, forget: "a.e1.r0"},
		{name: "stop", want: []string{"a.e1.r0 stop"}, seen: []string{"running a.e1.r0"}, get: "stop a.e1.r0"},
		{name: "stop while starting", want: []string{"a.e1.r0 stop"}, seen: []string{"starting a.e1.r0"}, get: "stop a.e1.r0"},
		{name: "stop of what never started", want: []string{"a.e1.r0 stop"}, get: "void a.e1.r0"},
		{name: "stopping waits", want: []string{"a.e1.r0 stop"}, seen: []string{"stopping a.e1.r0"}, at: 5 * time.Second},
		{name: "kill after the grace", want: []string{"a.e1.r0 stop"}, seen: []string{"stopping a.e1.r0"}, at: 6 * time.Second, get: "kill a.e1.r0"},
		{name: "unknown to the servers", seen: []string{"running a.e1.r0"}, get: "stop a.e1.r0"},
		{name: "servers not heard yet", unknown: true, seen: []string{"running a.e1.r0"}},
		{name: "older epoch is fenced first", want: []string{"a.e2.r0"}, seen: []string{"running a.e1.r0"},
			get: "stop a.e1.r0\nwait a.e2.r0: task a.e1.r0 of an older attempt has not ended yet"},
		{name: "older epoch wanted too", want: []string{"a.e1.r0", "a.e2.r0"}, seen: []string{"running a.e1.r0"},
			get: "stop a.e1.r0\nwait a.e2.r0: task a.e1.r0 of an older attempt has not ended yet"},
		{name: "unproven older epoch is waited for", want: []string{"a.e2.r0"}, seen: []string{"unproven a.e1.r0"},
			get: "wait a.e2.r0: task a.e1.r0 of an older attempt has not ended yet"},
		{name: "older epoch has ended", want: []string{"a.e2.r0"}, seen: []string{"ended a.e1.r0"}, get: "start a.e2.r0\nclean a.e1.r0"},
		{name: "older epoch never starts", want: []string{"a.e1.r0"}, seen: []string{"ended a.e2.r0"}, get: "void a.e1.r0\nclean a.e2.r0"},
		{name: "device held", want: []string{"a.e1.r0 stop dev=g", "b.e1.r0 dev=g"}, seen: []string{"stopping a.e1.r0 dev=g"},
			get: "wait b.e1.r0: task a.e1.r0 still holds device g"},
		{name: "shares fit", want: []string{"a.e1.r0 dev=g:400", "b.e1.r0 dev=g:600"}, seen: []string{"running a.e1.r0 dev=g:400"}, get: "start b.e1.r0"},
		{name: "shares do not fit", want: []string{"a.e1.r0 dev=g:500", "b.e1.r0 dev=g:600"},
			get: "start a.e1.r0\nwait b.e1.r0: task a.e1.r0 still holds device g"},
		{name: "port held", want: []string{"b.e1.r0 port=7"}, seen: []string{"running a.e1.r0 port=7"},
			get: "stop a.e1.r0\nwait b.e1.r0: task a.e1.r0 still holds port 7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := Wanted{Known: !c.unknown, Forget: map[string]bool{c.forget: c.forget != ""}}
			for _, text := range c.want {
				w.Assignments = append(w.Assignments, want(text))
			}
			var seen []Observed
			for _, text := range c.seen {
				seen = append(seen, sees(text))
			}
			if got := describe(Plan(w, seen, epoch0.Add(c.at))); got != c.get {
				t.Errorf("got\n%s\nwant\n%s", got, c.get)
			}
		})
	}
}

func TestNextIsTheEndOfTheGrace(t *testing.T) {
	r := Plan(Wanted{Known: true}, []Observed{sees("stopping a.e1.r0")}, epoch0)
	if want := epoch0.Add(time.Second + KillMargin); !r.Next.Equal(want) {
		t.Errorf("next %v, want %v", r.Next, want)
	}
}

// model is a node whose agent obeys Plan, and the servers that command it.
type model struct {
	now     time.Time
	known   bool
	wanted  map[string]*pb.Assignment
	forget  map[string]bool
	seen    map[string]*Observed
	starts  map[string]int
	running map[string]*pb.Assignment // trees that exist
	newest  map[string]uint64
}

var devices = []string{"g0", "g1"}

func (m *model) plan() Result {
	w := Wanted{Known: m.known, Forget: m.forget}
	for _, id := range sortedKeys(m.wanted) {
		w.Assignments = append(w.Assignments, m.wanted[id])
	}
	var seen []Observed
	for _, id := range sortedKeys(m.seen) {
		seen = append(seen, *m.seen[id])
	}
	return Plan(w, seen, m.now)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// obey carries the actions out, and fails the test on one that breaks a promise.
func (m *model) obey(t *rapid.T, r Result) {
	for _, a := range r.Actions {
		o := m.seen[a.TaskID]
		switch a.Kind {
		case Start:
			m.starts[a.TaskID]++
			if m.starts[a.TaskID] > 1 {
				t.Fatalf("task %s was started twice", a.TaskID)
			}
			m.mayRun(t, a.Assignment)
			m.seen[a.TaskID] = &Observed{Assignment: a.Assignment, Phase: Starting}
			m.running[a.TaskID] = a.Assignment
		case Void:
			if m.running[a.TaskID] != nil {
				t.Fatalf("running task %s was voided", a.TaskID)
			}
			m.seen[a.TaskID] = &Observed{Assignment: a.Assignment, Phase: Ended, Unreported: true}
		case Stop:
			o.Phase, o.StopAt = Stopping, m.now
		case Kill:
			o.Killed = true
			m.end(a.TaskID)
		case Report:
			o.Unreported, o.Acknowledged = false, true
		case Clean:
			if m.running[a.TaskID] != nil {
				t.Fatalf("running task %s was forgotten", a.TaskID)
			}
			delete(m.seen, a.TaskID)
		}
	}
}

// mayRun checks fencing and the devices of what is about to run.
func (m *model) mayRun(t *rapid.T, a *pb.Assignment) {
	held := map[string]int32{}
	for id, other := range m.running {
		if other.Task.JobId == a.Task.JobId && other.Task.Epoch != a.Task.Epoch {
			t.Fatalf("%s starts while %s of another attempt runs", a.Task.Id, id)
		}
		for _, g := range other.Allocation.Devices {
			held[g.DeviceId] += g.ShareMilli
		}
	}
	for _, g := range a.Allocation.Devices {
		if held[g.DeviceId]+g.ShareMilli > WholeDevice {
			t.Fatalf("%s starts on device %s of which %d is held", a.Task.Id, g.DeviceId, held[g.DeviceId])
		}
	}
}

func (m *model) end(id string) {
	delete(m.running, id)
	if o := m.seen[id]; o != nil {
		o.Phase, o.Unreported, o.Acknowledged = Ended, true, false
	}
}

// disturb is one thing that happens to the node.
func (m *model) disturb(t *rapid.T) {
	job := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "job")
	switch rapid.IntRange(0, 6).Draw(t, "what") {
	case 0: // a new attempt
		m.newest[job]++
		dev := rapid.SampledFrom(devices).Draw(t, "device")
		share := rapid.SampledFrom([]string{"", ":400", ":600"}).Draw(t, "share")
		for rank := range rapid.IntRange(1, 2).Draw(t, "ranks") {
			id := fmt.Sprintf("%s.e%d.r%d", job, m.newest[job], rank)
			m.wanted[id] = want(id + " dev=" + dev + share)
		}
	case 1: // stop whatever the job has
		for id, a := range m.wanted {
			if a.Task.JobId == job {
				m.wanted[id] = want(id + " stop")
				m.wanted[id].Allocation = a.Allocation
			}
		}
	case 2: // a task ends by itself
		for _, id := range sortedKeys(m.running) {
			if rapid.Bool().Draw(t, "ends") {
				m.end(id)
			}
		}
	case 3: // the servers record ends
		for id, o := range m.seen {
			if o.Phase == Ended && !o.Unreported {
				m.forget[id] = true
				delete(m.wanted, id)
			}
		}
	case 4: // the agent restarts
		m.known = false
		for _, o := range m.seen {
			if o.Phase != Ended {
				o.Phase, o.StopAt, o.Killed = Unproven, time.Time{}, false
			} else {
				o.Unreported, o.Acknowledged = true, false
			}
		}
	case 5: // what was unproven is found, or shown to be gone
		for _, id := range sortedKeys(m.seen) {
			m.prove(id, rapid.Bool().Draw(t, "alive"))
		}
	case 6: // the session is back
		m.known = true
	}
}

func (m *model) prove(id string, alive bool) {
	o := m.seen[id]
	if o.Phase != Unproven && o.Phase != Starting {
		return
	}
	if alive && m.running[id] != nil {
		o.Phase, o.Unreported = Running, true
	} else {
		m.end(id)
	}
}

// TestPromises runs random histories: nothing is started twice, fencing and devices hold
// at every start, and when the servers want nothing the node becomes empty.
func TestPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{now: epoch0, wanted: map[string]*pb.Assignment{}, forget: map[string]bool{}, seen: map[string]*Observed{},
			starts: map[string]int{}, running: map[string]*pb.Assignment{}, newest: map[string]uint64{}}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			m.disturb(t)
			m.obey(t, m.plan())
			m.now = m.now.Add(time.Second)
		}
		m.known = true
		m.wanted = map[string]*pb.Assignment{}
		for range 4 {
			for id := range m.seen {
				m.prove(id, true)
			}
			m.obey(t, m.plan())
			m.now = m.now.Add(time.Minute)
			for id, o := range m.seen {
				if o.Phase == Ended && !o.Unreported {
					m.forget[id] = true
				}
			}
		}
		if len(m.seen) > 0 || len(m.running) > 0 {
			t.Fatalf("the node is not empty: %d seen, %d running", len(m.seen), len(m.running))
		}
	})
}

// TestPlanIsSteady: without a change, the same call gives the same actions.
func TestPlanIsSteady(t *testing.T) {
	w := Wanted{Known: true, Assignments: []*pb.Assignment{want("a.e2.r0 dev=g"), want("b.e1.r0 stop")}}
	seen := []Observed{sees("running! a.e1.r0 dev=g"), sees("ended! c.e1.r0")}
	first := describe(Plan(w, seen, epoch0))
	for range 10 {
		if again := describe(Plan(w, seen, epoch0)); again != first {
			t.Fatalf("first\n%s\nthen\n%s", first, again)
		}
	}
}
