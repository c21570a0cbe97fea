package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/ca"
	"llmos/transport"
)

// scripted is a server that answers the public API with what a test wrote down.
type scripted struct {
	pb.UnimplementedClusterServiceServer
	addr string

	mu        sync.Mutex
	submitted []*pb.SubmitJobRequest
	stopped   []string
	views     []*pb.JobView  // what WatchJob sends
	logs      []*pb.LogChunk // what ReadLogs sends
	refuse    error          // of SubmitJob
	hang      bool           // WatchJob never ends
	watching  chan struct{}  // closed when a hanging WatchJob has sent its views
	status    *pb.ClusterStatus
	queues    []*pb.SetQueuesRequest
	drained   []*pb.DrainNodeRequest
	reserved  []*pb.Reservation
	config    *pb.SchedulerConfig
}

func (s *scripted) SubmitJob(_ context.Context, r *pb.SubmitJobRequest) (*pb.SubmitJobResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return nil, s.refuse
	}
	s.submitted = append(s.submitted, r)
	return &pb.SubmitJobResponse{JobId: "train-1", Index: 7}, nil
}

func (s *scripted) GetJob(_ context.Context, r *pb.GetJobRequest) (*pb.JobView, error) {
	if !strings.HasPrefix(r.JobId, "train") {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "there is no job %s", r.JobId).Hint("llmos ps -a lists all")
	}
	return jobView("train-1", pb.JobState_JOB_STATE_RUNNING, 2, 0), nil
}

func (s *scripted) WatchJob(_ *pb.WatchJobRequest, stream grpc.ServerStreamingServer[pb.JobView]) error {
	for _, v := range s.views {
		if err := stream.Send(v); err != nil {
			return err
		}
	}
	if s.hang {
		close(s.watching)
		<-stream.Context().Done()
	}
	return nil
}

func (s *scripted) ReadLogs(_ *pb.ReadLogsRequest, stream grpc.ServerStreamingServer[pb.LogChunk]) error {
	for _, c := range s.logs {
		if err := stream.Send(c); err != nil {
			return err
		}
	}
	return nil
}

func (s *scripted) StopJob(_ context.Context, r *pb.StopJobRequest) (*pb.StopJobResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = append(s.stopped, r.JobId+": "+r.Reason)
	return &pb.StopJobResponse{JobId: r.JobId}, nil
}

func (s *scripted) ExplainJob(context.Context, *pb.ExplainJobRequest) (*pb.Explanation, error) {
	return &pb.Explanation{JobId: "train-1", State: pb.JobState_JOB_STATE_PENDING, Reason: "no node has 9 devices"}, nil
}

func (s *scripted) ListJobs(context.Context, *pb.ListJobsRequest) (*pb.ListJobsResponse, error) {
	return &pb.ListJobsResponse{Jobs: []*pb.JobView{jobView("train-1", pb.JobState_JOB_STATE_RUNNING, 2, 0)}}, nil
}

func (s *scripted) ListNodes(context.Context, *pb.ListNodesRequest) (*pb.ListNodesResponse, error) {
	return someNodes(), nil
}

func (s *scripted) RemoveNode(_ context.Context, r *pb.RemoveNodeRequest) (*pb.RemoveNodeResponse, error) {
	if r.NodeId != "n-b" {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "there is no node %s", r.NodeId)
	}
	return &pb.RemoveNodeResponse{}, nil
}

func (s *scripted) GetStatus(context.Context, *pb.GetStatusRequest) (*pb.ClusterStatus, error) {
	return s.status, nil
}

func (s *scripted) CreateJoinToken(_ context.Context, r *pb.CreateJoinTokenRequest) (*pb.CreateJoinTokenResponse, error) {
	if r.Role == pb.MemberRole_MEMBER_ROLE_SERVER {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_DENIED, "you may not admit servers")
	}
	return &pb.CreateJoinTokenResponse{Token: "llmos1.c-1.pin.t-1.secret", ExpiresMs: noon.UnixMilli() + r.TtlMs}, nil
}

// startScripted serves s over mutual TLS on loopback and gives an app whose client folder
// knows it.
func startScripted(t *testing.T, s *scripted) (a *app, out, errOut *stream, dir string) {
	t.Helper()
	now := time.Now()
	authority, err := ca.New("c-1", now)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(role pb.MemberRole, id string) *transport.Credentials {
		key, err := transport.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		csr, err := transport.NewCSR(key)
		if err != nil {
			t.Fatal(err)
		}
		der, err := authority.Issue(csr, transport.Identity{ClusterID: "c-1", Role: role, MemberID: id}, []string{"127.0.0.1"}, time.Hour, now)
		if err != nil {
			t.Fatal(err)
		}
		creds, err := transport.NewCredentials(der, key, authority.CertificateDER())
		if err != nil {
			t.Fatal(err)
		}
		return creds
	}
	port, err := transport.Listen("127.0.0.1:0", issue(pb.MemberRole_MEMBER_ROLE_SERVER, "s-1"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(transport.ServerOptions()...)
	pb.RegisterClusterServiceServer(server, s)
	go func() { _ = server.Serve(port.Listener(transport.ProtoGRPC)) }()
	go func() { _ = port.Serve() }()
	t.Cleanup(func() { server.Stop(); port.Close() })
	s.addr = port.Addr().String()
	if s.status == nil {
		s.status = &pb.ClusterStatus{ClusterId: "c-1", Servers: []*pb.ServerStatus{{Id: "s-1", Addr: s.addr, Leader: true}, {Id: "s-2", Addr: "127.0.0.1:9"}}}
	}
	dir = filepath.Join(t.TempDir(), "client")
	if err := saveClient(dir, &clientFile{ClusterID: "c-1", Servers: []string{s.addr}}, issue(pb.MemberRole_MEMBER_ROLE_USER, "u-1")); err != nil {
		t.Fatal(err)
	}
	a, out, errOut = testApp()
	a.now = time.Now
	a.getenv = func(name string) (string, bool) { return dir, name == "LLMOS_CLIENT_DIR" }
	return a, out, errOut, dir
}

// TestVerbs runs every verb that asks and prints against a scripted server.
func TestVerbs(t *testing.T) {
	s := &scripted{logs: []*pb.LogChunk{{Rank: 1, Data: []byte("hello\n"), End: true}}}
	a, out, errOut, _ := startScripted(t, s)
	for _, c := range []struct {
		line string
		code int
		out  string // in standard output
		err  string // in standard error
	}{
		{"run --name train -- python train.py", 0, "train-1\n", "llmos logs -f train-1"},
		{"run -o json -- true", 0, `"job_id":"train-1"`, ""},
		{"ps", 0, "train-1  running  default  2/2    2", ""},
		{"ps -o json", 0, `"jobs":[{`, ""},
		{"nodes", 0, "gpu-1  ready", ""},
		{"nodes rm gpu-2", 0, "node gpu-2 is forgotten", ""},
		{"nodes rm gpu-9", exitNotFound, "", "llmos: there is no node gpu-9"},
		{"status", 0, "cluster   c-1", ""},
		{"why train", 0, "train-1 is pending: no node has 9 devices", ""},
		{"why -o json train", 0, `"reason":"no node has 9 devices"`, ""},
		{"stop train --reason enough", 0, "train-1 is asked to stop", ""},
		{"stop nobody", exitNotFound, "", "llmos: there is no job nobody\nhint: llmos ps -a lists all"},
		{"logs train", 0, "[1] hello\n", ""},
		{"logs --rank 2 train", exitNotFound, "", "train-1 has no rank 2: its ranks are 0 to 1"},
		{"token create --role agent", 0, "llmos1.c-1.pin.t-1.secret\n", "llmos agent --join " + s.addr},
		{"token create --role agent -q", 0, "llmos1.c-1.pin.t-1.secret\n", ""},
		{"token create --role server", exitDenied, "", "llmos: you may not admit servers"},
	} {
		out.Reset()
		errOut.Reset()
		strip := strings.NewReplacer(": ", ":", " ,", ",")
		code := a.run(t.Context(), strings.Fields(c.line))
		if code != c.code || !strings.Contains(strip.Replace(out.String()), strip.Replace(c.out)) || !strings.Contains(errOut.String(), c.err) ||
			c.err == "" && errOut.Len() > 0 {
			t.Errorf("llmos %s: exit code %d, want %d\nout: %s\nerr: %s", c.line, code, c.code, out, errOut)
		}
	}
	if got := s.stopped; len(got) != 1 || got[0] != "train-1: enough" {
		t.Errorf("stopped %v", got)
	}
	first, second := s.submitted[0], s.submitted[1]
	role := first.Spec.Roles[0]
	if first.Spec.Name != "train" || role.Workdir != "/here" || strings.Join(role.Command, " ") != "python train.py" || second.Spec.GenerateName != "true" {
		t.Errorf("submitted %v and %v", first, second)
	}
	if len(first.RequestId) != 2*requestIDBytes || first.RequestId == second.RequestId {
		t.Errorf("request IDs %q and %q", first.RequestId, second.RequestId)
	}
}

func TestRunWaits(t *testing.T) {
	failed := story()
	end := failed[len(failed)-1]
	end.Job.State, end.Job.ExitCode, end.Job.Reason = pb.JobState_JOB_STATE_FAILED, 42, "rank 0: exit 42"
	s := &scripted{views: failed, logs: []*pb.LogChunk{{Data: []byte("out\n")}, {Offset: 4, Data: []byte("err\n"), Stderr: true, End: true}}}
	a, out, errOut, _ := startScripted(t, s)
	if code := a.run(t.Context(), []string{"run", "--follow", "--", "x"}); code != 42 {
		t.Errorf("exit code %d, want the job's, 42", code)
	}
	if out.String() != "out\n" {
		t.Errorf("standard output %q", out)
	}
	for _, want := range []string{"train-1 runs: 2 tasks", "err\n", "attempt 1 ends: rank 1: exit 3", "train-1 failed after 1m15s: rank 0: exit 42; others were stopped (2 attempts)"} {
		if !strings.Contains(errOut.String(), want) {
			t.Errorf("standard error lacks %q:\n%s", want, errOut)
		}
	}
	out.Reset()
	if code := a.run(t.Context(), []string{"run", "-w", "-o", "json", "--", "x"}); code != 42 || !strings.HasPrefix(out.String(), "{") || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("exit code %d, standard output is not one object: %q", code, out)
	}
}

func TestInterruptDetaches(t *testing.T) {
	for _, follow := range []string{"--wait", "--follow"} {
		s := &scripted{views: story()[:3], hang: true, watching: make(chan struct{})}
		a, _, errOut, _ := startScripted(t, s)
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			<-s.watching
			cancel(interrupted{})
		}()
		if code := a.run(ctx, []string{"run", follow, "--", "x"}); code != exitInterrupted {
			t.Errorf("%s: exit code %d", follow, code)
		}
		if len(s.stopped) > 0 || !strings.Contains(errOut.String(), "llmos stop train-1") {
			t.Errorf("%s: stopped %v, printed %s", follow, s.stopped, errOut)
		}
	}
}

func TestRefusedSubmit(t *testing.T) {
	s := &scripted{refuse: fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, `a job named "x" is still running as x-3`).Hint("stop it with llmos stop x-3")}
	a, out, errOut, _ := startScripted(t, s)
	if code := a.run(t.Context(), []string{"run", "--wait", "--", "x"}); code != exitConflict || out.Len() > 0 {
		t.Errorf("exit code %d, out %q", code, out)
	}
	if want := "llmos: a job named \"x\" is still running as x-3\nhint: stop it with llmos stop x-3\n"; errOut.String() != want {
		t.Errorf("printed %q, want %q", errOut, want)
	}
}

// TestServersAreLearned holds the client folder to the cluster's own list of servers.
func TestServersAreLearned(t *testing.T) {
	s := &scripted{}
	a, _, _, dir := startScripted(t, s)
	session, err := a.open(t.Context(), &connection{timeout: callTimeout})
	if err != nil {
		t.Fatal(err)
	}
	named := <-session.named
	session.named <- named
	session.close()
	f, err := readClientFile(dir)
	if err != nil || strings.Join(f.Servers, " ") != s.addr+" 127.0.0.1:9" {
		t.Errorf("servers %v (%v)", f, err)
	}
}

func TestUnreachableCluster(t *testing.T) {
	a, _, errOut, dir := startScripted(t, &scripted{})
	if err := (&clientFile{ClusterID: "c-1", Servers: []string{"127.0.0.1:1"}}).write(dir); err != nil {
		t.Fatal(err)
	}
	if code := a.run(t.Context(), []string{"ps", "--timeout", "300ms"}); code != exitUnavailable {
		t.Errorf("exit code %d", code)
	}
	if got := errOut.String(); !strings.Contains(got, "127.0.0.1:1") || !strings.Contains(got, "hint: is a server running at") {
		t.Errorf("printed %s", got)
	}
	errOut.Reset()
	if err := (&clientFile{ClusterID: "c-2", Servers: []string{"127.0.0.1:1"}}).write(dir); err != nil {
		t.Fatal(err)
	}
	if code := a.run(t.Context(), []string{"ps"}); code != exitInvalid || !strings.Contains(errOut.String(), "names cluster c-2, and the certificate beside it cluster c-1") {
		t.Errorf("exit code %d, printed %s", code, errOut)
	}
}

func TestExpiredCertificate(t *testing.T) {
	a, _, errOut, _ := startScripted(t, &scripted{})
	a.now = func() time.Time { return time.Now().Add(1000 * time.Hour) }
	if code := a.run(t.Context(), []string{"ps"}); code != exitDenied || !strings.Contains(errOut.String(), "your certificate of cluster c-1 expired on") {
		t.Errorf("exit code %d, printed %s", code, errOut)
	}
}
