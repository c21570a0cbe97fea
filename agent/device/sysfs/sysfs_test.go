package sysfs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"llmos/agent/device"
)

// host makes the files of a fixture: lines `path = text` and `path -> target`.
func host(t *testing.T, fixture string) string {
	t.Helper()
	root := t.TempDir()
	if fixture == "" {
		return root
	}
	text, err := os.ReadFile(filepath.Join("testdata", fixture+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if path, target, link := strings.Cut(line, " -> "); link {
			err = os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755)
			if err == nil {
				err = os.Symlink(target, filepath.Join(root, path))
			}
		} else {
			path, value, _ := strings.Cut(line, " =")
			err = os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755)
			if err == nil {
				err = os.WriteFile(filepath.Join(root, path), []byte(strings.ReplaceAll(strings.TrimSpace(value), `\n`, "\n")), 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// listed writes what a prober finds as text.
func listed(t *testing.T, p device.Prober) string {
	t.Helper()
	devices, err := p.Probe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, d := range devices {
		s := fmt.Sprintf("%d %s %s %s numa=%d %s below %s", d.Index, d.Id, d.Kind, d.Model, d.NumaNode, d.Path, d.PciePath)
		if d.Island != "" {
			s += " in " + d.Island
		}
		if d.Reason != "" {
			s += " FAILED"
		}
		out = append(out, s)
	}
	return strings.Join(out, "\n")
}

func TestProbers(t *testing.T) {
	for _, c := range []struct {
		fixture string
		make    func(root string) device.Prober
		want    string
	}{
		{"amd-mi300x", func(r string) device.Prober { return NewAMD(r) },
			"0 GPU-123456789abcdef0 gpu MI300X-192GB numa=0 /dev/dri/renderD128 below pci0000:00/0000:00:01.1 in xgmi0\n" +
				"1 GPU-00000000000000ff gpu gfx942-192GB numa=1 /dev/dri/renderD136 below pci0000:20/0000:20:01.1 in xgmi0"},
		{"intel", func(r string) device.Prober { return NewIntel(r) },
			"0 intel-0000:1a:00.0 gpu Max-1550-128GB numa=-1 /dev/dri/renderD129 below pci0000:18/0000:18:00.0\n" +
				"1 intel-0000:41:00.0 gpu Intel-9999-16GB numa=-1  below "},
		{"tpu", func(r string) device.Prober { return NewTPU(r) },
			"0 tpu-0000:00:04.0 tpu TPU-v4-32GB numa=0 /dev/accel0 below pci0000:00\n" +
				"1 tpu-0000:00:05.0 tpu TPU-v5e-16GB numa=-1 /dev/vfio/7 below pci0000:00\n" +
				"2 tpu-0000:00:06.0 tpu TPU-v2-16GB numa=-1 /dev/accel1 below pci0000:00\n" +
				"3 tpu-0000:00:07.0 tpu TPU-v6e-32GB numa=-1  below pci0000:00 FAILED"},
	} {
		if got := listed(t, c.make(host(t, c.fixture))); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.fixture, got, c.want)
		}
		// A host with none of it, such as one of Apple's, whose kernel has no such files at all.
		for _, other := range []string{"", "intel", "amd-mi300x", "tpu"} {
			if other != c.fixture {
				if got := listed(t, c.make(host(t, other))); got != "" {
					t.Errorf("the prober of %s finds on the host %q:\n%s", c.fixture, other, got)
				}
			}
		}
	}
}

func TestUseOfAMD(t *testing.T) {
	use, err := NewAMD(host(t, "amd-mi300x")).Use(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	a, b := "GPU-123456789abcdef0", "GPU-00000000000000ff"
	if want := []device.ProcessUse{{DeviceID: a, PID: 4711, MemoryBytes: 2 << 30}, {DeviceID: b, PID: 4712, MemoryBytes: 1 << 30}}; fmt.Sprint(use.Processes) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", use.Processes, want)
	}
	if want := (device.Figure{Percent: 37, UsedBytes: 3 << 30, Celsius: 45, Milliwatt: 135_000, ECCCorrected: 2}); use.Figures[a] != want {
		t.Errorf("%+v, want %+v", use.Figures[a], want)
	}
	if use.Figures[b] != device.NoFigure {
		t.Errorf("%+v of a GPU that says nothing", use.Figures[b])
	}
	intel, err := NewIntel(host(t, "intel")).Use(context.Background())
	if err != nil || intel.Figures["intel-0000:1a:00.0"].Celsius != 51 {
		t.Errorf("%+v, %v", intel, err)
	}
}

func TestAMDThatMayNotBeRead(t *testing.T) {
	root := host(t, "amd-mi300x")
	if err := os.Remove(filepath.Join(root, kfdNodes, "1/properties")); err != nil {
		t.Fatal(err)
	}
	if _, err := NewAMD(root).Probe(context.Background()); err == nil || !strings.Contains(err.Error(), "GPU 28851 of KFD has no properties") {
		t.Errorf("%v", err)
	}
}
