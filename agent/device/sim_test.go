//go:build cgo && linux

package device

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"

	pb "llmos/proto/llmos/v1"
)

// simState is what ails the simulated NVML. A real child process reads it from a file at each
// call, as a driver changes under a program that uses it.
type simState struct {
	Outage bool             // every call fails
	Hang   bool             // counting the devices never ends
	Order  []int            // the GPUs by index; one that is not in it has vanished
	Lost   []int            // GPUs that do not answer
	XIDs   []simXID         // each is heard once
	Slices map[int][]string // of a GPU: UUID and profile of its MIG slices
}

type simXID struct{ GPU, XID int }

func readSim() (s simState) {
	if text, err := os.ReadFile(os.Getenv(flagVar)); err == nil {
		_ = json.Unmarshal(text, &s)
	}
	return s
}

// simulatedNVML is a library of eight GPUs with what readSim says.
func simulatedNVML() nvml.Interface {
	machine := dgxa100.New()
	lib := &mock.Interface{
		InitFunc:                   func() nvml.Return { return nvml.SUCCESS },
		ShutdownFunc:               func() nvml.Return { return nvml.SUCCESS },
		SystemGetDriverVersionFunc: func() (string, nvml.Return) { return "580.1", nvml.SUCCESS },
	}
	lib.DeviceGetCountFunc = func() (int, nvml.Return) {
		s := readSim()
		switch {
		case s.Hang:
			time.Sleep(time.Hour)
		case s.Outage:
			return 0, nvml.ERROR_UNKNOWN
		}
		return len(s.Order), nvml.SUCCESS
	}
	lib.DeviceGetHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		s := readSim()
		if i >= len(s.Order) || slices.Contains(s.Lost, s.Order[i]) {
			return nil, nvml.ERROR_GPU_IS_LOST
		}
		return simGPU(machine, s.Order[i]), nvml.SUCCESS
	}
	heard := 0
	lib.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) {
		return &mock.EventSet{
			FreeFunc: func() nvml.Return { return nvml.SUCCESS },
			WaitFunc: func(uint32) (nvml.EventData, nvml.Return) {
				s := readSim()
				if s.Outage {
					return nvml.EventData{}, nvml.ERROR_UNKNOWN
				}
				if heard < len(s.XIDs) {
					x := s.XIDs[heard]
					heard++
					return nvml.EventData{Device: simGPU(machine, x.GPU), EventType: nvml.EventTypeXidCriticalError, EventData: uint64(x.XID),
						GpuInstanceId: eventNoSlice, ComputeInstanceId: eventNoSlice}, nvml.SUCCESS
				}
				time.Sleep(5 * time.Millisecond)
				return nvml.EventData{}, nvml.ERROR_TIMEOUT
			}}, nvml.SUCCESS
	}
	return lib
}

// simGPU is a GPU with the slices that it has now.
func simGPU(machine *server.Server, i int) nvml.Device {
	d := &machine.Devices[i].(*server.Device).Device
	d.GetUUIDFunc = func() (string, nvml.Return) { return fmt.Sprintf("GPU-simulated-%d", i), nvml.SUCCESS }
	d.RegisterEventsFunc = func(uint64, nvml.EventSet) nvml.Return { return nvml.SUCCESS }
	d.GetMigModeFunc = func() (int, int, nvml.Return) {
		if _, sliced := readSim().Slices[i]; sliced {
			return nvml.DEVICE_MIG_ENABLE, nvml.DEVICE_MIG_ENABLE, nvml.SUCCESS
		}
		return nvml.DEVICE_MIG_DISABLE, nvml.DEVICE_MIG_DISABLE, nvml.SUCCESS
	}
	d.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 7, nvml.SUCCESS }
	d.GetMigDeviceHandleByIndexFunc = func(n int) (nvml.Device, nvml.Return) {
		all := readSim().Slices[i]
		if n >= len(all) {
			return nil, nvml.ERROR_NOT_FOUND
		}
		uuid, profile, _ := strings.Cut(all[n], " ")
		return slice(uuid, "NVIDIA A100 MIG "+profile, 4864), nvml.SUCCESS
	}
	return d
}

// sim is an agent's half against a real child with the simulated NVML, with a clock of its own.
type sim struct {
	t     *testing.T
	path  string
	state simState
	watch *watcher
	nv    *nvidia
	clock time.Time
	ids   []string // of the GPUs, by number
}

func newSim(t *testing.T) *sim {
	t.Helper()
	s := &sim{t: t, path: filepath.Join(t.TempDir(), "nvml"), clock: time.Unix(1_800_000_000, 0)}
	for i := range 8 {
		s.state.Order = append(s.state.Order, i)
	}
	s.set(func(*simState) {})
	s.nv = newNVIDIA([]string{os.Args[0]}, []string{childModeVar + "=sim", flagVar + "=" + s.path}, slog.New(slog.DiscardHandler))
	s.nv.now, s.nv.answerTimeout = func() time.Time { return s.clock }, 20*time.Second
	t.Cleanup(func() {
		if s.nv.child != nil {
			s.nv.child.kill()
		}
	})
	s.watch = &watcher{probers: []*watched{{prober: s.nv}}, log: slog.New(slog.DiscardHandler)}
	for _, d := range s.look() {
		s.ids = append(s.ids, d.Id)
	}
	if len(s.ids) != 8 {
		t.Fatalf("%d GPUs", len(s.ids))
	}
	return s
}

func (s *sim) set(change func(*simState)) {
	s.t.Helper()
	change(&s.state)
	text, err := json.Marshal(s.state)
	if err == nil {
		err = os.WriteFile(s.path+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(s.path+".new", s.path)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// look is one probe, fifteen seconds after the one before.
func (s *sim) look() []*pb.Device {
	s.clock = s.clock.Add(15 * time.Second)
	return s.watch.probe(context.Background()).Devices
}

// text writes devices by their number, health and index: 3 ok at 2.
func (s *sim) text(devices []*pb.Device) string {
	var out []string
	for _, d := range devices {
		name := d.Id
		if i := slices.Index(s.ids, d.Id); i >= 0 {
			name = fmt.Sprint(i)
		}
		if h := strings.ToLower(strings.TrimPrefix(d.Health.String(), "DEVICE_HEALTH_")); h != "ok" {
			name += " " + h
		}
		if i := slices.Index(s.ids, d.Id); i != int(d.Index) {
			name += fmt.Sprintf(" at %d", d.Index)
		}
		out = append(out, name)
	}
	return strings.Join(out, ", ")
}

func (s *sim) want(what, want string) {
	s.t.Helper()
	if got := s.text(s.look()); got != want {
		s.t.Errorf("%s: %s\nwant %s", what, got, want)
	}
}

const allWell = "0, 1, 2, 3, 4, 5, 6, 7"

// TestSimulatedOutage: for 60 s every call of NVML fails. The devices turn stale at the second
// look, and heal at the first that succeeds.
func TestSimulatedOutage(t *testing.T) {
	s := newSim(t)
	s.set(func(x *simState) { x.Outage = true })
	s.want("after 15 s", allWell)
	const stale = "0 stale, 1 stale, 2 stale, 3 stale, 4 stale, 5 stale, 6 stale, 7 stale"
	for second := 30; second <= 60; second += 15 {
		s.want(fmt.Sprintf("after %d s", second), stale)
	}
	s.set(func(x *simState) { x.Outage = false })
	for range 8 { // the child is started again after a pause that has grown, and listens anew
		if s.text(s.look()) == allWell {
			return
		}
	}
	s.want("long after the outage", allWell)
}

// TestSimulatedXIDs: errors are heard once, in order and of the right GPU, also after the set
// of GPUs has changed and after a restart of the child.
func TestSimulatedXIDs(t *testing.T) {
	s := newSim(t)
	hear := func(want ...simXID) {
		t.Helper()
		var got []simXID
		for deadline := time.Now().Add(20 * time.Second); len(got) < len(want) && time.Now().Before(deadline); {
			events, err := Hear(context.Background(), []Prober{listed{}, s.nv})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				got = append(got, simXID{slices.Index(s.ids, e.DeviceID), int(e.XID)})
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("heard %v, want %v", got, want)
		}
	}
	hear()
	s.set(func(x *simState) { x.XIDs = []simXID{{3, 79}, {5, 48}} })
	hear(simXID{3, 79}, simXID{5, 48})
	hear()
	s.set(func(x *simState) { x.Order = []int{0, 1, 2, 4, 5, 6, 7} })
	s.look()
	s.set(func(x *simState) { x.XIDs = append(x.XIDs, simXID{7, 94}) })
	hear(simXID{7, 94})
}

// TestSimulatedVanishedGPU: a GPU that does not answer, and one that is no longer counted, are
// shown failed; the others are untouched, at whatever index they are now.
func TestSimulatedVanishedGPU(t *testing.T) {
	s := newSim(t)
	s.set(func(x *simState) { x.Lost = []int{3} })
	s.want("a lost GPU", "0, 1, 2, 3 failed, 4, 5, 6, 7")
	s.set(func(x *simState) { x.Lost, x.Order = nil, []int{0, 1, 2, 4, 5, 6, 7} })
	s.want("a vanished GPU", "0, 1, 2, 3 failed, 4 at 3, 5 at 4, 6 at 5, 7 at 6")
	s.nv.stopChild()
	s.want("after a restart of the child", "0, 1, 2, 3 failed, 4 at 3, 5 at 4, 6 at 5, 7 at 6")
	s.set(func(x *simState) { x.Order = []int{0, 1, 2, 3, 4, 5, 6, 7} })
	s.want("back again", allWell)
	s.set(func(x *simState) { x.Lost = []int{0, 1, 2, 3, 4, 5, 6, 7} })
	s.want("all lost", "0 failed, 1 failed, 2 failed, 3 failed, 4 failed, 5 failed, 6 failed, 7 failed")
}

// TestSimulatedFirstLook: a GPU that is lost already when the agent starts hides no other.
func TestSimulatedFirstLook(t *testing.T) {
	s := newSim(t)
	s.nv.stopChild()
	s.nv.gpus = nil
	s.set(func(x *simState) { x.Lost = []int{2} })
	s.want("with a lost GPU", "0, 1, "+namelessPrefix+"2 failed at 2, 3, 4, 5, 6, 7")
	s.set(func(x *simState) { x.Lost = nil })
	s.want("when it answers", allWell)
}

// TestSimulatedReorder: UUIDs are what a device is known by; where it is listed means nothing.
func TestSimulatedReorder(t *testing.T) {
	s := newSim(t)
	s.set(func(x *simState) { x.Order = []int{7, 6, 5, 4, 3, 2, 1, 0} })
	s.want("reversed", "7 at 0, 6 at 1, 5 at 2, 4 at 3, 3 at 4, 2 at 5, 1 at 6, 0 at 7")
	s.set(func(x *simState) { x.Lost = []int{6} })
	s.want("and one lost", "7 at 0, 6 failed at 1, 5 at 2, 4 at 3, 3 at 4, 2 at 5, 1 at 6, 0 at 7")
	// Now a GPU answers at the index of the lost one, whose own index is not known any more.
	s.set(func(x *simState) { x.Order = []int{6, 7, 5, 4, 3, 2, 1, 0} })
	devices := s.look()
	seen := map[string]bool{}
	for _, d := range devices {
		if seen[d.Id] {
			t.Errorf("device %s is listed twice", d.Id)
		}
		seen[d.Id] = true
		if i := slices.Index(s.ids, d.Id); i >= 0 && i != 6 && d.Health != pb.DeviceHealth_DEVICE_HEALTH_OK {
			t.Errorf("GPU %d is %v", i, d)
		}
	}
	for _, id := range s.ids {
		if !seen[id] {
			t.Errorf("GPU %d is listed no more", slices.Index(s.ids, id))
		}
	}
}

// TestSimulatedReshaping: slices come and go with their GPU's shape, and none is missed as vanished.
func TestSimulatedReshaping(t *testing.T) {
	s := newSim(t)
	const rest = ", 1, 2, 3, 4, 5, 6, 7"
	shape := func(want string, slices ...string) {
		t.Helper()
		s.set(func(x *simState) {
			x.Slices = nil
			if slices != nil {
				x.Slices = map[int][]string{0: slices}
			}
		})
		s.want(want, want+rest)
	}
	shape("MIG-a at 0, MIG-b at 0", "MIG-a 3g.20gb", "MIG-b 3g.20gb")
	shape("MIG-b at 0, MIG-c at 0, MIG-d at 0", "MIG-b 3g.20gb", "MIG-c 1g.5gb", "MIG-d 1g.5gb")
	s.set(func(x *simState) { x.Slices = map[int][]string{0: {}} })
	s.want("MIG without slices", "0 failed"+rest)
	shape("MIG-e at 0", "MIG-e 7g.40gb")
	s.set(func(x *simState) { x.Order = []int{1, 2, 3, 4, 5, 6, 7} })
	if got := s.text(s.look()); !strings.Contains(got, "MIG-e failed") {
		t.Errorf("the slice of a vanished GPU: %s", got)
	}
}

// TestSimulatedHang: a child that hangs in the driver is killed, the devices turn stale, and a
// new child heals them.
func TestSimulatedHang(t *testing.T) {
	s := newSim(t)
	child := s.nv.child.cmd.Process.Pid
	s.nv.answerTimeout = 300 * time.Millisecond
	s.set(func(x *simState) { x.Hang = true })
	s.want("at the first silence", allWell)
	s.want("at the second", "0 stale, 1 stale, 2 stale, 3 stale, 4 stale, 5 stale, 6 stale, 7 stale")
	if _, err := s.nv.Events(context.Background()); err != nil {
		t.Errorf("errors are asked for of a child that is not there: %v", err)
	}
	s.set(func(x *simState) { x.Hang = false })
	s.nv.answerTimeout = 20 * time.Second
	s.clock = s.clock.Add(restartMax)
	s.want("when it answers", allWell)
	if s.nv.child.cmd.Process.Pid == child {
		t.Error("the child that hung is still asked")
	}
}

func playSimulation() int { return serveNVML(os.Stdin, os.Stdout, simulatedNVML(), "/sys") }
