package metrics_test

import (
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"flag"

	"llmos/fsm"
	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
	"llmos/server/metrics"
)

var rewrite = flag.Bool("rewrite", false, "write testdata")

// scripted is a server with one running job, one that waits, and two nodes.
type scripted struct {
	st    *state.State
	leads bool
}

func (s *scripted) Stale() *state.State { return s.st }
func (s *scripted) Standing() metrics.Standing {
	return metrics.Standing{ServerID: "s-1", Version: "test", Leads: s.leads, Term: 3, Commit: 12, Applied: 11, NowMS: 95_000}
}

func (s *scripted) Progress(job string) []*pb.Progress {
	if job != "train-1" {
		return nil
	}
	return []*pb.Progress{
		{TaskId: "train-1.e1.r0", Rank: 0, Step: 120, Steps: 400, Values: map[string]float64{"loss": 1.5, "tokens_per_s": 5400},
			Sample: &pb.Sample{CpuMilli: 1500, MemoryBytes: 1 << 30, DiskBytes: 4096, GpuMemoryBytes: 60 << 30, GpuPercent: 93}},
		{TaskId: "train-1.e1.r1", Rank: 1, Step: 119, Sample: &pb.Sample{CpuMilli: 1400, MemoryBytes: 1 << 30, GpuPercent: -1}},
	}
}

func (s *scripted) Stalls(job string) []*pb.Stall {
	if job != "train-1" {
		return nil
	}
	return []*pb.Stall{{Rank: 1}}
}

func node(id, name string) *pb.Command {
	n := &pb.Node{Id: id, Name: name, Addr: name + ":7301", BootId: "b", CpuMilli: 8000, MemoryBytes: 16 << 30, PortMin: 20000, PortMax: 20100}
	n.Devices = []*pb.Device{{Id: id + ".0", Kind: "gpu", Vendor: "scripted", Model: "H100-80GB", MemoryBytes: 80 << 30, Health: pb.DeviceHealth_DEVICE_HEALTH_OK, NumaNode: -1}}
	return &pb.Command{Op: &pb.Command_RegisterNode{RegisterNode: &pb.RegisterNode{Node: n}}}
}

func submit(name string, count int32) *pb.Command {
	spec := &pb.JobSpec{Name: name, Kind: pb.JobKind_JOB_KIND_BATCH, Priority: 50, Roles: []*pb.RoleSpec{{Name: "worker", Count: count, Command: []string{"true"},
		Resources: &pb.Resources{CpuMilli: 1000, MemoryBytes: 1 << 30, Gpus: 1}}}}
	return &pb.Command{Op: &pb.Command_SubmitJob{SubmitJob: &pb.SubmitJob{Spec: spec, User: "u"}}}
}

// cluster applies a short log.
func cluster(t *testing.T) *state.State {
	t.Helper()
	f := fsm.New()
	place := func(node, device string) *pb.TaskPlacement {
		return &pb.TaskPlacement{NodeId: node, Devices: []*pb.DeviceGrant{{DeviceId: device, ShareMilli: 1000, MemoryBytes: 80 << 30}}}
	}
	gang := &pb.GangPlacement{JobId: "train-1", Epoch: 1, Tasks: []*pb.TaskPlacement{place("n-1", "n-1.0"), place("n-2", "n-2.0")}}
	gang.Tasks[0].Ports = []int32{20001}
	index := uint64(0)
	for _, c := range []*pb.Command{
		{Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{Meta: &pb.ClusterMeta{ClusterId: "c-000000000001", Name: "test", StateVersion: fsm.StateVersion}}}},
		node("n-1", "gpu-1"), node("n-2", "gpu-2"), submit("train", 2), submit("waits", 1),
		{Op: &pb.Command_ApplyPlan{ApplyPlan: &pb.ApplyPlan{Gangs: []*pb.GangPlacement{gang}}}},
	} {
		index++
		for _, r := range f.Apply(index, &pb.Entry{TimeMs: int64(index) * 1000, Commands: []*pb.Command{c}}) {
			if r.Fault != nil {
				t.Fatal(r.Fault)
			}
			for _, g := range r.Gangs {
				if g.Fault != nil {
					t.Fatal(g.Fault)
				}
			}
		}
	}
	return f.State()
}

// ours are the lines that are not about the process itself.
var ours = regexp.MustCompile(`(?m)^llmos_.*$`)

func scrape(src metrics.Source) string {
	answer := httptest.NewRecorder()
	metrics.Handler(src).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	return strings.Join(ours.FindAllString(answer.Body.String(), -1), "\n") + "\n"
}

// TestFigures holds every figure of a small cluster.
func TestFigures(t *testing.T) {
	got := scrape(&scripted{st: cluster(t), leads: true})
	const path = "testdata/figures.txt"
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestFollowersTellOfThemselves: a sum over the servers counts no job twice.
func TestFollowersTellOfThemselves(t *testing.T) {
	got := scrape(&scripted{st: cluster(t)})
	if strings.Contains(got, "llmos_jobs") || strings.Contains(got, "llmos_task") || !strings.Contains(got, "llmos_server_applied_index 11") {
		t.Errorf("a follower shows:\n%s", got)
	}
}
