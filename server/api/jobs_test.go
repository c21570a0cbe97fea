package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

const (
	kindInvalid    = pb.ErrorKind_ERROR_KIND_INVALID
	kindNotFound   = pb.ErrorKind_ERROR_KIND_NOT_FOUND
	kindLimit      = pb.ErrorKind_ERROR_KIND_LIMIT
	kindNoCapacity = pb.ErrorKind_ERROR_KIND_NO_CAPACITY
)

// TestSubmitRefuses what can never run, in words that name the field.
func TestSubmitRefuses(t *testing.T) {
	r := newRig(t)
	api := pb.NewClusterServiceClient(r.conn(r.server("s-000000000001"), roleUser, "jane"))
	ask := func(name string, gpus int32) *pb.JobSpec {
		s := simpleSpec(name, 1)
		s.Roles[0].Resources.Gpus = gpus
		return s
	}
	if _, err := api.SubmitJob(testContext(t), &pb.SubmitJobRequest{Spec: ask("early", 16)}); err != nil {
		t.Errorf("with no node registered nothing is impossible: %v", err)
	}
	r.node("n-000000000001", "a", "127.0.0.1:1", 8)
	r.node("n-000000000002", "b", "127.0.0.1:2", 8)
	r.node("n-000000000003", "c", "127.0.0.1:3", 8)
	long := simpleSpec("long", 1)
	long.Roles[0].Env = map[string]string{"A": strings.Repeat("x", specBytesMax)}
	both := simpleSpec("both", 1)
	both.Roles[0].Resources = &pb.Resources{CpuMilli: 9000, MemoryBytes: 1 << 20}
	model := ask("model", 1)
	model.Roles[0].Resources.GpuModel = "B200"
	for _, c := range []struct {
		name  string
		req   *pb.SubmitJobRequest
		kind  pb.ErrorKind
		words string
	}{
		{"16 GPUs", &pb.SubmitJobRequest{Spec: ask("x", 16)}, kindNoCapacity, "asks 16 GPUs; the largest node has 8, the cluster 24"},
		{"9 CPUs", &pb.SubmitJobRequest{Spec: both}, kindNoCapacity, "asks 9 CPUs; the largest node has 8 CPUs, the cluster 24"},
		{"a model that is not there", &pb.SubmitJobRequest{Spec: model}, kindNoCapacity, "no node has that model"},
		{"no job", &pb.SubmitJobRequest{}, kindInvalid, "spec"},
		{"no roles", &pb.SubmitJobRequest{Spec: &pb.JobSpec{Name: "x"}}, kindInvalid, "role"},
		{"a long spec", &pb.SubmitJobRequest{Spec: long}, kindLimit, "262144"},
		{"many tasks", &pb.SubmitJobRequest{Spec: simpleSpec("x", tasksPerJobMax+1)}, kindLimit, "10001 tasks"},
		{"a long key", &pb.SubmitJobRequest{Spec: simpleSpec("x", 1), RequestId: strings.Repeat("k", 200)}, kindLimit, "request_id"},
	} {
		c.req.RequestId += "k"
		_, err := api.SubmitJob(testContext(t), c.req)
		wantKind(t, c.name, err, c.kind)
		if err != nil && !strings.Contains(fault.From(err).Error(), c.words) {
			t.Errorf("%s: %q does not say %q", c.name, fault.From(err).Error(), c.words)
		}
	}
	_, err := api.SubmitJob(testContext(t), &pb.SubmitJobRequest{Spec: ask("x", 16)})
	wantKind(t, "16 GPUs without a request ID", err, kindNoCapacity)
	if n := len(slices.Collect(r.f.State().Jobs())); n != 1 {
		t.Errorf("%d jobs in the state, want the one that was accepted", n)
	}
}

// TestSubmitMakesARequestID when the caller gave none.
func TestSubmitMakesARequestID(t *testing.T) {
	r := newRig(t)
	api := pb.NewClusterServiceClient(r.conn(r.server("s-000000000001"), roleUser, "jane"))
	resp, err := api.SubmitJob(testContext(t), &pb.SubmitJobRequest{Spec: simpleSpec("x", 1)})
	if err != nil {
		t.Fatal(err)
	}
	if key := r.f.State().Job(resp.JobId).RequestId; !strings.HasPrefix(key, "made-") {
		t.Errorf("request ID %q", key)
	}
}

// TestListJobsInPages walks the list by pages of two while jobs finish.
func TestListJobsInPages(t *testing.T) {
	r := newRig(t)
	api := pb.NewClusterServiceClient(r.conn(r.server("s-000000000001"), roleUser, "jane"))
	var want []string
	for i := range 7 {
		want = append(want, r.submit(fmt.Sprintf("job%d", i), 1))
	}
	stop := func(id string) {
		if _, err := api.StopJob(testContext(t), &pb.StopJobRequest{JobId: id}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	after := ""
	for {
		page, err := api.ListJobs(testContext(t), &pb.ListJobsRequest{Limit: 2, After: after})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page.Jobs {
			got = append(got, v.Job.Id)
			if len(v.Events) > 0 {
				t.Error("a list shows events")
			}
		}
		if !page.More {
			break
		}
		after = got[len(got)-1]
		stop(after) // the next page goes on behind a job that is not in the list any more
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	all, err := api.ListJobs(testContext(t), &pb.ListJobsRequest{All: true, Stale: true})
	if err != nil || len(all.Jobs) != 7 || all.More {
		t.Errorf("all: %d jobs, more %v, %v", len(all.GetJobs()), all.GetMore(), err)
	}
	_, err = api.ListJobs(testContext(t), &pb.ListJobsRequest{Limit: -1})
	wantKind(t, "a negative limit", err, kindInvalid)
	_, err = api.ListJobs(testContext(t), &pb.ListJobsRequest{After: "gone-1"})
	wantKind(t, "a forgotten mark", err, kindNotFound)
}

// TestStopJob by name and by ID, twice, and of what is not there.
func TestStopJob(t *testing.T) {
	r := newRig(t)
	api := pb.NewClusterServiceClient(r.conn(r.server("s-000000000001"), roleUser, "jane"))
	id := r.submit("x", 1)
	for _, name := range []string{"x", id} {
		resp, err := api.StopJob(testContext(t), &pb.StopJobRequest{JobId: name, Reason: "enough"})
		if err != nil || resp.JobId != id {
			t.Errorf("stop %s: %v, %v", name, resp, err)
		}
	}
	_, err := api.StopJob(testContext(t), &pb.StopJobRequest{JobId: "y"})
	wantKind(t, "a job that is not there", err, kindNotFound)
	_, err = api.StopJob(testContext(t), &pb.StopJobRequest{})
	wantKind(t, "no job", err, kindInvalid)
	_, err = api.GetJob(testContext(t), &pb.GetJobRequest{JobId: strings.Repeat("x", 300)})
	wantKind(t, "a very long name", err, kindLimit)
}

// TestExplain follows a job through its life.
func TestExplain(t *testing.T) {
	r := newRig(t)
	api := pb.NewClusterServiceClient(r.conn(r.server("s-000000000001"), roleUser, "jane"))
	const node = "n-000000000001"
	r.node(node, "a", "127.0.0.1:1", 0)
	id := r.submit("x", 2)
	explain := func(stage string, s pb.JobState, reason string, detail string) {
		t.Helper()
		x, err := api.ExplainJob(testContext(t), &pb.ExplainJobRequest{JobId: "x"})
		if err != nil {
			t.Fatal(err)
		}
		if x.JobId != id || x.State != s || !strings.Contains(x.Reason, reason) || len(x.Events) == 0 {
			t.Errorf("%s: got %v, want state %v and %q", stage, x, s, reason)
		}
		if detail != "" && !strings.Contains(strings.Join(x.Details, "\n"), detail) {
			t.Errorf("%s: details %q, want %q", stage, x.Details, detail)
		}
	}
	explain("at once", pb.JobState_JOB_STATE_PENDING, "not looked", "")
	r.say("all CPUs are taken")
	explain("waiting", pb.JobState_JOB_STATE_PENDING, "all CPUs are taken", "")
	r.place(id, node)
	explain("placed", pb.JobState_JOB_STATE_RUNNING, "", "")
	r.report(id, node, 0, taskRunning, 0)
	r.report(id, node, 0, taskFailed, 3)
	r.report(id, node, 1, taskStopped, 0)
	explain("again", pb.JobState_JOB_STATE_PENDING, "all CPUs", "attempt 1 ended: rank 0")
	if _, err := api.StopJob(testContext(t), &pb.StopJobRequest{JobId: "x"}); err != nil {
		t.Fatal(err)
	}
	explain("stopped", pb.JobState_JOB_STATE_CANCELLED, "", "attempt 1 ended")
}

// TestNodesAndStatus counts what there is.
func TestNodesAndStatus(t *testing.T) {
	r := newRig(t)
	api := pb.NewClusterServiceClient(r.conn(r.server("s-000000000001"), roleUser, "jane"))
	const node = "n-000000000001"
	r.node(node, "a", "127.0.0.1:1", 2)
	r.node("n-000000000002", "b", "127.0.0.1:2", 1)
	id := r.submit("x", 1)
	r.submit("y", 1)
	r.place(id, node)
	nodes, err := api.ListNodes(testContext(t), &pb.ListNodesRequest{})
	if err != nil || len(nodes.Nodes) != 2 || nodes.Nodes[0].Tasks+nodes.Nodes[1].Tasks != 1 || nodes.Nodes[0].Account == nil {
		t.Errorf("nodes: %v, %v", nodes, err)
	}
	s, err := api.GetStatus(testContext(t), &pb.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%s %d/%d nodes %d/%d devices %d pending %d running fault %q", s.Name, s.NodesReady, s.NodesTotal,
		s.DevicesFree, s.DevicesTotal, s.JobsPending, s.JobsRunning, s.InvariantFault)
	if want := `test 2/2 nodes 3/3 devices 1 pending 1 running fault ""`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if hash := r.f.State().Hash(); string(s.StateHash) != string(hash[:]) || s.StateIndex != r.f.State().Index() {
		t.Error("the state's hash or index is wrong")
	}
	_, err = api.RemoveNode(testContext(t), &pb.RemoveNodeRequest{NodeId: "b"})
	wantKind(t, "a node that is connected", err, pb.ErrorKind_ERROR_KIND_CONFLICT)
	r.must(&pb.Command{Op: &pb.Command_SetNodeState{SetNodeState: &pb.SetNodeState{NodeId: "n-000000000002", State: pb.NodeState_NODE_STATE_SILENT}}})
	if _, err := api.RemoveNode(testContext(t), &pb.RemoveNodeRequest{NodeId: "b"}); err != nil {
		t.Error(err)
	}
	_, err = api.RemoveNode(testContext(t), &pb.RemoveNodeRequest{NodeId: "b"})
	wantKind(t, "a node that is gone", err, kindNotFound)
	if _, err = api.RemoveNode(testContext(t), &pb.RemoveNodeRequest{NodeId: node}); err == nil {
		t.Error("a node with a live task was removed")
	}
}
