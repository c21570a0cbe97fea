package api

import (
	"strings"
	"testing"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// TestStoppingServerEndsWaits stops a server while calls wait on it: for a leader, for a
// job's next change, for more output, and for the leader's answer to a read. Each is told
// so, and none keeps the server from ending.
func TestStoppingServerEndsWaits(t *testing.T) {
	r := newRig(t)
	leader, follower := r.server("s-000000000001"), r.server("s-000000000002")
	follower.gate.wait = time.Hour
	id := r.submit("x", 1)
	told := func(what string, err error) {
		t.Helper()
		wantKind(t, what, err, pb.ErrorKind_ERROR_KIND_UNAVAILABLE)
		if !strings.Contains(fault.From(err).Fault.Message, "stopping") {
			t.Errorf("%s: %v", what, err)
		}
	}
	api := pb.NewClusterServiceClient(r.conn(leader, roleUser, "jane"))
	watch, err := api.WatchJob(testContext(t), &pb.WatchJobRequest{JobId: id})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	logs, err := api.ReadLogs(testContext(t), &pb.ReadLogsRequest{JobId: id, Rank: allRanks, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	close(leader.stop)
	_, err = watch.Recv()
	told("a watch", err)
	_, err = logs.Recv()
	told("logs", err)

	asked := make(chan struct{}, 1)
	leader.hang = asked
	ended := make(chan error, 1)
	list := func() {
		_, err := pb.NewClusterServiceClient(r.conn(follower, roleUser, "jane")).ListNodes(testContext(t), &pb.ListNodesRequest{})
		ended <- err
	}
	go list()
	<-asked
	close(follower.stop)
	told("a read at the leader", <-ended)
	r.setLeader("")
	go list()
	told("a wait for a leader", <-ended)
}
