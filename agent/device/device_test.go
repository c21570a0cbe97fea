package device

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "llmos/proto/llmos/v1"
)

func probe(t *testing.T, p Prober) []*pb.Device {
	t.Helper()
	devices, err := p.Probe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return devices
}

func TestScriptedGroups(t *testing.T) {
	p, err := Scripted("2xA100-40GB, 1xL4-24GB", "n-0123456789ab")
	if err != nil {
		t.Fatal(err)
	}
	devices := probe(t, p)
	var got []string
	for _, d := range devices {
		got = append(got, d.Id+" "+d.Model)
		if d.Health != pb.DeviceHealth_DEVICE_HEALTH_OK || d.Vendor != "scripted" || d.Kind != "gpu" || d.NumaNode != -1 {
			t.Errorf("%v", d)
		}
	}
	want := "n-0123456789ab-g0 A100-40GB; n-0123456789ab-g1 A100-40GB; n-0123456789ab-g2 L4-24GB"
	if s := strings.Join(got, "; "); s != want {
		t.Errorf("%s, want %s", s, want)
	}
	if devices[2].MemoryBytes != 24<<30 {
		t.Errorf("memory %d", devices[2].MemoryBytes)
	}
	devices[0].Health = pb.DeviceHealth_DEVICE_HEALTH_FAILED
	if probe(t, p)[0].Health != pb.DeviceHealth_DEVICE_HEALTH_OK {
		t.Error("what a caller does to a device shows in the next probe")
	}
}

func TestScriptedFaults(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ spec, want string }{
		{"", "devices: the description of scripted devices is empty (hint: " + scriptHint + ")"},
		{"H100", `devices: "H100" does not describe devices (hint: ` + scriptHint + ")"},
		{"0xH100-80GB", `devices[0].count: 0 devices of model "H100-80GB", want 1 to 256 (hint: ` + scriptHint + ")"},
		{"4xH100", `devices[0].model: model "H100" does not end with its memory (hint: ` + scriptHint + ")"},
		{"200xH100-80GB,100xH100-80GB", "devices[1].count: more than 256 devices on one node (hint: " + scriptHint + ")"},
		{"1xL4-99999GB", "devices[0].memory_gb: 99999 GiB of memory, want 1 to 4096 (hint: " + scriptHint + ")"},
		{dir + "/none.yaml", "read the script of devices: open " + dir + "/none.yaml"},
		{file("unknown.yaml", "devices:\n  - {model: L4-24GB, helth: bad}\n"), `line 2: devices: the script of devices ` + dir + `/unknown.yaml: unknown field "helth"`},
		{file("health.yaml", "devices: [{model: L4-24GB, health: bad}]\n"), `health "bad", want ok, stale, failed or gone`},
		{file("twice.yaml", "devices: [{model: L4-24GB, id: a}, {model: L4-24GB, id: a}]\n"), `device ID "a" is used twice`},
	} {
		_, err := Scripted(c.spec, "n-1")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.spec, err, c.want)
		}
	}
}

// TestScriptIsReadAgain drives Watch by a file: each edit must arrive as one change, and a
// probe that fails must leave the devices in place and stale.
func TestScriptIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "devices.yaml")
	write := func(text string) {
		t.Helper()
		next := path + ".new" // renamed, so that no probe sees half a file
		if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
	}
	write("devices: [{model: H100-80GB, count: 2}]")
	p, err := Scripted(path, "n-1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	first, changes, err := Watch(ctx, "n-1", []Prober{p}, watchEveryMin, slog.New(slog.DiscardHandler))
	if err != nil || len(first.Devices) != 2 || first.Host.CPUMilli < 1 || first.Host.MemoryBytes < memoryBytesMin {
		t.Fatalf("%+v, %v", first, err)
	}
	next := func() Inventory {
		t.Helper()
		select {
		case inv := <-changes:
			return inv
		case <-time.After(20 * time.Second):
			t.Fatal("no change arrives")
		}
		return Inventory{}
	}
	write("devices: [{model: H100-80GB}, {model: H100-80GB, health: failed, reason: XID 79}]")
	if d := next().Devices[1]; d.Health != pb.DeviceHealth_DEVICE_HEALTH_FAILED || d.Reason != "XID 79" {
		t.Errorf("%v", d)
	}
	write("error: the script says so")
	inv := next()
	if len(inv.Devices) != 2 || inv.Devices[0].Health != pb.DeviceHealth_DEVICE_HEALTH_STALE ||
		inv.Devices[0].Reason != "prober scripted is silent: the script says so" || inv.Devices[1].Health != pb.DeviceHealth_DEVICE_HEALTH_FAILED {
		t.Errorf("%v", inv.Devices)
	}
	write("devices: [{model: H100-80GB, count: 3}]")
	if inv := next(); len(inv.Devices) != 3 || inv.Devices[0].Health != pb.DeviceHealth_DEVICE_HEALTH_OK {
		t.Errorf("%v", inv.Devices)
	}
	cancel()
	if _, open := <-changes; open {
		t.Error("a change arrives after the end")
	}
}

// listed is a prober with a fixed list.
type listed []*pb.Device

func (l listed) Name() string                                { return "listed" }
func (l listed) Probe(context.Context) ([]*pb.Device, error) { return l, nil }

func TestMergeKeepsOneDevicePerID(t *testing.T) {
	a := listed{{Id: "x", Vendor: "nvidia", Index: 1}, {Id: "y", Vendor: "nvidia"}}
	b := listed{{Id: "x", Vendor: "other"}, {Id: "a", Vendor: "amd", Index: 7}}
	w := &watcher{probers: []*watched{{prober: a}, {prober: b}}, log: slog.New(slog.DiscardHandler)}
	var got []string
	for _, d := range w.probe(context.Background()).Devices {
		got = append(got, d.Vendor+"/"+d.Id)
	}
	if s := strings.Join(got, " "); s != "amd/a nvidia/y nvidia/x" {
		t.Errorf("%s", s)
	}
}

func TestModelNames(t *testing.T) {
	for _, c := range []struct {
		name string
		mib  int64
		want string
	}{
		{"NVIDIA A100-SXM4-40GB", 40960, "A100-40GB"}, {"NVIDIA A100 80GB PCIe", 81920, "A100-80GB"},
		{"NVIDIA H100 80GB HBM3", 81559, "H100-80GB"}, {"NVIDIA H100 NVL", 95830, "H100-94GB"},
		{"NVIDIA H200", 143771, "H200-141GB"}, {"Tesla T4", 15360, "T4-16GB"}, {"NVIDIA L4", 23034, "L4-24GB"},
		{"NVIDIA L40S", 46068, "L40S-48GB"}, {"NVIDIA GeForce RTX 4090", 24564, "RTX-4090-24GB"},
		{"Tesla V100-SXM2-32GB", 32510, "V100-32GB"}, {"NVIDIA B200", 183359, "B200-180GB"}, {"", 1024, "GPU-2GB"}, {"NVIDIA X9", 0, "X9"},
	} {
		if got := modelName(c.name, c.mib<<20); got != c.want {
			t.Errorf("%q with %d MiB is %q, want %q", c.name, c.mib, got, c.want)
		}
	}
}

func FuzzFrame(f *testing.F) {
	var good bytes.Buffer
	if err := writeFrame(&good, answer{ID: 1, Devices: []childDevice{{UUID: "GPU-1", Name: "NVIDIA L4", MemoryBytes: 24 << 30}}}); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	good.Reset()
	if err := writeFrame(&good, answer{ID: 2, Uses: []childUse{{UUID: "MIG-1", PID: 7, Bytes: 1 << 30}}, Figures: []childFigure{{UUID: "GPU-1", Percent: 9, Celsius: -1}}, Events: []childEvent{{UUID: "GPU-1", XID: 79, AtMS: 5}},
		Devices: []childDevice{{UUID: "MIG-1", Name: "NVIDIA H100", Parent: "GPU-2", Profile: "1g.10gb", WholeBytes: 80 << 30, MemoryBytes: 9 << 30}}}); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, '{'})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			var a answer
			if err := readFrame(r, &a); err != nil {
				if errors.Is(err, io.EOF) && r.Len() > 0 {
					t.Fatalf("the end is seen with %d bytes left", r.Len())
				}
				return
			}
			if a.check(a.ID) != nil {
				continue
			}
			seen := map[string]bool{}
			for _, d := range a.devices() {
				if d.Id == "" || d.Model == "" || d.MemoryBytes < 0 || seen[d.Id] {
					t.Fatalf("device %v passes", d)
				}
				seen[d.Id] = true
			}
			u := a.use()
			for _, p := range u.Processes {
				if p.DeviceID == "" || p.PID < 1 || p.MemoryBytes < 0 {
					t.Fatalf("use %v passes", p)
				}
			}
			for id, f := range u.Figures {
				if f.Percent < unknown || f.Percent > 100 || f.UsedBytes < unknown {
					t.Fatalf("device %q is %+v", id, f)
				}
			}
		}
	})
}
