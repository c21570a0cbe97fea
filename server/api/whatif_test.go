package api

import (
	"cmp"
	"strings"
	"testing"

	pb "llmos/proto/llmos/v1"
)

// TestWhatIf lets a scripted leader say with how much a job would start, and reads the
// counterfactuals of the plan.
func TestWhatIf(t *testing.T) {
	r := newRig(t)
	api := pb.NewClusterServiceClient(r.conn(r.server("s-000000000001"), roleUser, "jane"))
	tries, remedy := 0, ""
	free := func(gpus int32, also func(*pb.JobSpec) bool) func(*pb.JobSpec) *pb.PlanJobResponse {
		return func(s *pb.JobSpec) *pb.PlanJobResponse {
			tries++
			asked := int32(0)
			for _, role := range s.Roles {
				asked += role.Count * role.GetResources().GetGpus()
			}
			resp := &pb.PlanJobResponse{StartsNow: asked <= gpus || also != nil && also(s), Explanation: &pb.Explanation{Reason: "full", Remedy: remedy}}
			if s.Priority == urgent {
				resp.StartsNow, resp.Evicts = true, []string{"low-1", "low-2"}
			}
			return resp
		}
	}
	gang := func(count, gpus int32) *pb.JobSpec {
		s := simpleSpec("x", count)
		s.Priority = urgent // nothing higher
		s.Priority--
		s.Roles[0].Resources.Gpus = gpus
		return s
	}
	narrow := gang(1, 1)
	narrow.Placement = &pb.PlacementSpec{Within: "rack", Near: []string{"cache"}}
	narrow.Roles[0].Resources.GpuModel = "H100-80GB"
	elastic := gang(16, 2)
	elastic.Roles[0].CountMin = 8
	for _, c := range []struct {
		name, remedy string
		spec         *pb.JobSpec
		plan         func(*pb.JobSpec) *pb.PlanJobResponse
		want         string
	}{
		{"what the scheduler found", "it starts now with 3 GPUs; otherwise: wait", gang(1, 8), free(6, nil), "with 3 GPUs; with priority 90, by stopping 2 jobs"},
		{"devices of a task", "", gang(1, 8), free(6, nil), "with 6 GPUs; with priority 90, by stopping 2 jobs"},
		{"tasks", "", gang(64, 1), free(37, nil), "with 37 GPUs (37 tasks); with priority 90, by stopping 2 jobs"},
		{"tasks of two", "", gang(8, 2), free(5, nil), "with 4 GPUs (2 tasks); with priority 90, by stopping 2 jobs"},
		{"an elastic one", "", elastic, free(10, nil), "with 10 GPUs (5 tasks); with priority 90, by stopping 2 jobs"},
		{"nothing", "", gang(1, 1), free(0, nil), "with priority 90, by stopping 2 jobs"},
		{"conditions", "", narrow, free(0, func(s *pb.JobSpec) bool { return s.Placement.Within == "" || s.Roles[0].Resources.GpuModel == "" }),
			"without within: rack; on GPUs of any model; with priority 90, by stopping 2 jobs"},
	} {
		tries, remedy = 0, cmp.Or(c.remedy, "wait")
		r.mu.Lock()
		r.plan = c.plan
		r.mu.Unlock()
		resp, err := api.PlanJob(testContext(t), &pb.PlanJobRequest{Spec: c.spec})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(resp.Explanation.WouldStart, "; "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if resp.Explanation.Remedy != "wait" {
			t.Errorf("%s: the remedy is %q", c.name, resp.Explanation.Remedy)
		}
		if tries > whatIfTries+1 {
			t.Errorf("%s: %d passes of the scheduler", c.name, tries)
		}
	}
}
