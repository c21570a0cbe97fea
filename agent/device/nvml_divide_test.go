//go:build cgo && linux

package device

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
)

// shapes is a mocked server whose GPU 0 is divided by orders.
type shapes struct {
	t   *testing.T
	lib *server.Server
	gpu *server.Device
}

func newShapes(t *testing.T) *shapes {
	t.Helper()
	s := &shapes{t: t, lib: dgxa100.New()}
	s.gpu = s.lib.Devices[0].(*server.Device)
	return s
}

// order sends an order through the child's protocol and gives its complaint.
func (s *shapes) order(profiles ...string) string {
	s.t.Helper()
	uuid, _ := s.gpu.GetUUID()
	var in, out bytes.Buffer
	if err := writeFrame(&in, question{ID: 1, Divide: &childDivide{UUID: uuid, Profiles: profiles}}); err != nil {
		s.t.Fatal(err)
	}
	if code := serveNVML(&in, &out, s.lib, s.t.TempDir()); code != 0 {
		s.t.Fatalf("exit code %d", code)
	}
	var a answer
	if err := readFrame(&out, &a); err != nil {
		s.t.Fatal(err)
	}
	return a.Error
}

// shape lists the slices by the number of the GPU's parts that they take.
func (s *shapes) shape() string {
	var out []string
	for gi := range s.gpu.GpuInstances {
		computes := len(gi.ComputeInstances)
		out = append(out, fmt.Sprintf("%d:%d", s.gpu.Config.MIGProfiles.GpuInstanceProfiles[int(gi.Info.ProfileId)].SliceCount, computes))
	}
	slices.Sort(out)
	return fmt.Sprintf("mig=%d %s", s.gpu.MigMode, strings.Join(out, " "))
}

func TestDivide(t *testing.T) {
	s := newShapes(t)
	for _, c := range []struct {
		profiles []string
		fault    string
		shape    string
	}{
		{[]string{"1g.5gb", "3g.20gb", "1g.5gb"}, "", "mig=1 1:1 1:1 3:1"},
		{[]string{"9g.5gb"}, `the GPU has no profile "9g.5gb"; it has 1g.5gb, `, "mig=1 1:1 1:1 3:1"},
		{[]string{"7g.40gb", "1g.5gb"}, "the profiles take 8 slices, and the GPU has 7", "mig=1 1:1 1:1 3:1"},
		{[]string{"7g.40gb", "7g.40gb"}, "2 slices of 7g.40gb do not fit on the GPU, at most 1 do", "mig=1 1:1 1:1 3:1"},
		{[]string{"7g.40gb"}, "", "mig=1 7:1"},
		{nil, "", "mig=0 "},
		{nil, "", "mig=0 "},
	} {
		fault := s.order(c.profiles...)
		if (fault == "") != (c.fault == "") || !strings.Contains(fault, c.fault) || s.shape() != c.shape {
			t.Errorf("%v: %q and %s, want %q and %s", c.profiles, fault, s.shape(), c.fault, c.shape)
		}
	}
}

func TestDivideWhatCannotBe(t *testing.T) {
	s := newShapes(t)
	s.gpu.SetMigModeFunc = func(int) (nvml.Return, nvml.Return) { return nvml.ERROR_RESET_REQUIRED, nvml.SUCCESS }
	if fault := s.order("7g.40gb"); !strings.Contains(fault, "takes effect at the next reset of the GPU") || s.shape() != "mig=0 " {
		t.Errorf("%q, %s", fault, s.shape())
	}
	s = newShapes(t)
	if fault := s.order("3g.20gb"); fault != "" {
		t.Fatal(fault)
	}
	for gi := range s.gpu.GpuInstances {
		for ci := range gi.ComputeInstances {
			ci.DestroyFunc = func() nvml.Return { return nvml.ERROR_IN_USE }
		}
	}
	if fault := s.order("7g.40gb"); !strings.Contains(fault, "destroy a slice of profile 3g.20gb: ") || s.shape() != "mig=1 3:1" {
		t.Errorf("%q, %s", fault, s.shape())
	}
	var in, out bytes.Buffer
	if err := writeFrame(&in, question{ID: 1, Divide: &childDivide{UUID: "GPU-none"}}); err != nil {
		t.Fatal(err)
	}
	serveNVML(&in, &out, s.lib, t.TempDir())
	var a answer
	if err := readFrame(&out, &a); err != nil || !strings.Contains(a.Error, "find GPU GPU-none") {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestParseProfiles(t *testing.T) {
	for words, want := range map[string]string{"1g.10gb": "[1g.10gb]", "2x1g.5gb, 3G.20GB": "[1g.5gb 1g.5gb 3g.20gb]", "1g.10gb+me": "[1g.10gb+me]"} {
		if got, err := ParseProfiles(words); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: %v, %v", words, got, err)
		}
	}
	for _, words := range []string{"", "1g", "0x1g.5gb", "1g.5gb,", "ag.5gb"} {
		if got, err := ParseProfiles(words); err == nil {
			t.Errorf("%q gives %v", words, got)
		}
	}
}
