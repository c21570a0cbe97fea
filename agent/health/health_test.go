package health

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"llmos/agent/device"
	pb "llmos/proto/llmos/v1"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func node() []*pb.Device {
	ok := pb.DeviceHealth_DEVICE_HEALTH_OK
	return []*pb.Device{{Id: "g0", Health: ok}, {Id: "g1", Health: ok}, {Id: "m1", Parent: "g2", Health: ok}, {Id: "m2", Parent: "g2", Health: ok}}
}

// told writes orders as text: the devices, and the reason.
func told(orders []Order) string {
	var out []string
	for _, o := range orders {
		ids := ""
		for _, d := range node() {
			if o.Devices[d.Id] {
				ids += d.Id + " "
			}
		}
		out = append(out, ids+"for "+o.Reason)
	}
	return strings.Join(out, "; ")
}

func shown(b *Book, blocked map[string]string) string {
	devices, unfit := b.Show(node(), blocked)
	out := ""
	for _, d := range devices {
		out += strings.ToLower(strings.TrimPrefix(d.Health.String(), "DEVICE_HEALTH_")) + " "
	}
	if unfit != "" {
		out += "unfit"
	}
	return strings.TrimSpace(out)
}

// TestTableIsObeyed: what each action does to the tasks, the device and the node.
func TestTableIsObeyed(t *testing.T) {
	const none = "ok ok ok ok"
	for _, c := range []struct {
		id     string
		xid    uint32
		orders string
		shown  string
	}{
		{"g0", 31, "", none},
		{"g0", 8, "g0 for XID 8 (the GPU stopped working on a channel) on device g0", none},
		{"m1", 94, "m1 for " + device.XIDTable{}.Of(94).String() + " on device m1", none},
		{"g2", 94, "m1 m2 for " + device.XIDTable{}.Of(94).String() + " on device g2", none},
		{"g0", 74, "", "failed ok ok ok"},
		{"m1", 74, "", "ok ok failed failed"},
		{"g1", 48, "g1 for " + device.XIDTable{}.Of(48).String() + " on device g1", "ok failed ok ok"},
		{"m1", 95, "m1 m2 for " + device.XIDTable{}.Of(95).String() + " on device m1", "ok ok failed failed"},
		{"g0", 79, "g0 for XID 79 (the GPU has fallen off the bus) on device g0", "failed ok ok ok unfit"},
		{"g0", 999, "", "failed ok ok ok"},
		{"gone", 79, "for XID 79 (the GPU has fallen off the bus) on device gone", none + " unfit"},
	} {
		b := &Book{}
		orders, log := b.Take([]device.Event{{DeviceID: c.id, XID: c.xid, At: noon}}, node())
		if got := told(orders); got != c.orders || len(log) != 1 {
			t.Errorf("XID %d on %s stops %q, want %q (%v)", c.xid, c.id, got, c.orders, log)
		}
		if got := shown(b, nil); got != c.shown {
			t.Errorf("XID %d on %s: %s, want %s", c.xid, c.id, got, c.shown)
		}
	}
	b := &Book{}
	if orders, log := b.Take([]device.Event{{XID: 48, At: noon}}, node()); len(orders) != 3 || len(log) != 3 || shown(b, nil) != "failed failed failed failed" {
		t.Errorf("an error of nobody knows which device: %v, %s", log, shown(b, nil))
	}
}

func TestFaultsLastUntilRepaired(t *testing.T) {
	b := &Book{}
	b.Take([]device.Event{{DeviceID: "g0", XID: 74, At: noon}, {DeviceID: "g0", XID: 74, At: noon.Add(time.Hour)}, {DeviceID: "g0", XID: 79, At: noon},
		{DeviceID: "m2", XID: 48, At: noon}}, node())
	if f := b.Faults(); len(f) != 3 || f[0].Count != 2 || !f[0].At.Equal(noon) {
		t.Fatalf("%+v", f)
	}
	devices, unfit := b.Show(node(), nil)
	want := "XID 79 (the GPU has fallen off the bus) at 2026-11-29T12:00:00Z; the host needs a restart, or llmos repair"
	if devices[0].Reason != want || unfit != "device g0: "+want {
		t.Errorf("%q, unfit %q", devices[0].Reason, unfit)
	}
	xid48 := device.XIDTable{}.Of(48).String()
	next := &Book{} // of the agent's next run
	next.Remember(b.Faults())
	if got := shown(next, nil); got != "failed ok failed failed unfit" {
		t.Error(got)
	}
	if got := fmt.Sprint(next.Repair("m1", node())); got != "[device g2: "+xid48+"]" || shown(next, nil) != "failed ok ok ok unfit" {
		t.Errorf("%s, %s", got, shown(next, nil))
	}
	if got := next.Repair("", node()); len(got) != 2 || shown(next, nil) != "ok ok ok ok" {
		t.Errorf("%v, %s", got, shown(next, nil))
	}
	if got := next.Repair("g0", node()); got != nil {
		t.Errorf("there was nothing to repair: %v", got)
	}
}

// TestBlame: a task that fails just after an error of its device did not fail by itself.
func TestBlame(t *testing.T) {
	b := &Book{}
	at := func(s int) time.Time { return noon.Add(time.Duration(s) * time.Second) }
	b.Take([]device.Event{{DeviceID: "g0", XID: 74, At: at(100)}, {DeviceID: "m1", XID: 94, At: at(100)}, {DeviceID: "g1", XID: 31, At: at(100)}}, node())
	for _, c := range []struct {
		held         string
		began, ended int
		blamed       bool
	}{
		{"g0", 0, 101, true}, {"g0", 0, 98, true}, {"g0", 0, 90, false}, {"g0", 0, 159, true}, {"g0", 0, 161, false}, {"g0", 101, 102, false},
		{"g1", 0, 101, false}, {"m1", 0, 101, true}, {"m2", 0, 101, false},
	} {
		why, blamed := b.Blame([]string{"other", c.held}, node(), at(c.began), at(c.ended))
		if blamed != c.blamed || blamed != (why != "") {
			t.Errorf("%+v: %q", c, why)
		}
	}
	b.Forget(at(100 + 601))
	if _, blamed := b.Blame([]string{"g0"}, node(), at(0), at(101)); blamed {
		t.Error("an error is remembered for ever")
	}
}

func TestStrangersBlock(t *testing.T) {
	b, blocks := &Book{}, &Blocks{}
	look := func(use device.Use) string {
		return shown(b, blocks.Look(Strangers(use, func(pid int) bool { return pid < 100 })))
	}
	process := func(pid int, gib int64) device.Use {
		return device.Use{Processes: []device.ProcessUse{{DeviceID: "g0", PID: pid, MemoryBytes: gib << 30}, {DeviceID: "g1", PID: 7, MemoryBytes: 70 << 30}}}
	}
	const free, blocked = "ok ok ok ok", "blocked ok ok ok"
	for i, step := range []struct {
		use  device.Use
		want string
	}{
		{process(50, 40), free}, {process(500, 40), free}, {process(50, 40), free}, // one that is just ending
		{process(500, 40), free}, {process(500, 41), blocked}, {process(500, 42), blocked},
		{process(50, 1), blocked}, {process(500, 42), blocked}, {process(50, 1), blocked}, {process(50, 1), free},
		{process(500, 0), free}, {process(500, 0), free},
		{device.Use{Figures: map[string]device.Figure{"g0": {UsedBytes: 1 << 30}}}, free}, {device.Use{Figures: map[string]device.Figure{"g0": {UsedBytes: 1 << 30}}}, free},
		{device.Use{Figures: map[string]device.Figure{"g0": {UsedBytes: 9 << 30}}}, free}, {device.Use{Figures: map[string]device.Figure{"g0": {UsedBytes: 9 << 30}}}, blocked},
	} {
		if got := look(step.use); got != step.want {
			t.Errorf("step %d: %s, want %s", i, got, step.want)
		}
	}
	blocks = &Blocks{}
	four := device.Use{}
	for pid := range 4 {
		four.Processes = append(four.Processes, device.ProcessUse{DeviceID: "g0", PID: 504 - pid, MemoryBytes: 1 << 30})
	}
	look(four)
	blocked2 := blocks.Look(Strangers(four, func(int) bool { return false }))
	if want := "4.0 GiB of its memory are held by processes 501, 502, 503 and 1 more, of no task of this node"; blocked2["g0"] != want {
		t.Errorf("%q", blocked2["g0"])
	}
	b.Take([]device.Event{{DeviceID: "g0", XID: 79, At: noon}}, node())
	if got := shown(b, blocked2); got != "failed ok ok ok unfit" {
		t.Errorf("the graver news is not shown: %s", got)
	}
	never := &Blocks{LeastBytes: -1}
	for range 3 {
		if why := never.Look(Strangers(four, func(int) bool { return false })); len(why) > 0 {
			t.Errorf("%v", why)
		}
	}
}
