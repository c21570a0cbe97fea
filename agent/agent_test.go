package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/ca"
	"llmos/transport"
)

// cluster is one scripted server with a real authority, port and certificates.
type cluster struct {
	pb.UnimplementedJoinServiceServer
	*scripted
	id        string
	authority *ca.CA
	creds     *transport.Credentials
	addr      string
}

func newCluster(t *testing.T, id string) *cluster {
	t.Helper()
	authority, err := ca.New(id, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{scripted: &scripted{opened: make(chan *played, 10)}, id: id, authority: authority}
	c.creds = c.credentials(t, pb.MemberRole_MEMBER_ROLE_SERVER, "s-000000000001")
	port, err := transport.Listen("127.0.0.1:0", c.creds, quiet)
	if err != nil {
		t.Fatal(err)
	}
	c.addr = port.Addr().String()
	server := grpc.NewServer(transport.ServerOptions()...)
	pb.RegisterJoinServiceServer(server, c)
	pb.RegisterSessionServiceServer(server, c.scripted)
	listener := port.Listener(transport.ProtoGRPC)
	var wait sync.WaitGroup
	wait.Go(func() { _ = port.Serve() })
	wait.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Stop(); port.Close(); wait.Wait() })
	return c
}

func (c *cluster) credentials(t *testing.T, role pb.MemberRole, member string) *transport.Credentials {
	t.Helper()
	key, err := transport.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := transport.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := c.issue(csr, role, member)
	if err != nil {
		t.Fatal(err)
	}
	creds, err := transport.NewCredentials(der, key, c.authority.CertificateDER())
	if err != nil {
		t.Fatal(err)
	}
	return creds
}

func (c *cluster) issue(csr []byte, role pb.MemberRole, member string) ([]byte, error) {
	return c.authority.Issue(csr, transport.Identity{ClusterID: c.id, Role: role, MemberID: member}, []string{"127.0.0.1"}, time.Hour, time.Now())
}

// Join admits everybody: whom to admit is the server's business, and tested there.
func (c *cluster) Join(_ context.Context, r *pb.JoinRequest) (*pb.JoinResponse, error) {
	der, err := c.issue(r.GetCsrDer(), r.GetRole(), r.GetMemberId())
	if err != nil {
		return nil, err
	}
	return &pb.JoinResponse{ClusterId: c.id, CertificateDer: der, CaCertificateDer: c.authority.CertificateDER(),
		ServerAddrs: []string{c.addr}, GossipKey: make([]byte, 32)}, nil
}

func (c *cluster) token(t *testing.T) string {
	t.Helper()
	token, _, err := c.authority.NewToken(pb.MemberRole_MEMBER_ROLE_AGENT, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return token.String()
}

func (c *cluster) config(t *testing.T, dir string) Config {
	cfg := DefaultConfig()
	cfg.DataDir, cfg.Listen, cfg.Name, cfg.Devices, cfg.Gossip, cfg.Join = dir, "127.0.0.1:0", "n1", "2xH100-80GB", false, []string{c.addr}
	cfg.Token = c.token(t)
	return cfg
}

// launch runs an agent; stop ends it and checks that it ended well.
func launch(t *testing.T, cfg Config) (a *Agent, stop func()) {
	t.Helper()
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- a.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-result; err != nil {
				t.Errorf("run: %v", err)
			}
			if err := a.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return a, stop
}

func readLogs(c *cluster, creds *transport.Credentials, addr string, req *pb.ReadLogsRequest) (data string, end bool, err error) {
	conn, err := transport.NewClient(addr, creds, pb.MemberRole_MEMBER_ROLE_AGENT)
	if err != nil {
		return "", false, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := pb.NewAgentServiceClient(conn).ReadLogs(ctx, req)
	if err != nil {
		return "", false, err
	}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return data, end, nil
		}
		if err != nil {
			return data, end, err
		}
		data, end = data+string(chunk.GetData()), chunk.GetEnd()
	}
}

func TestAgentFromJoinToRestart(t *testing.T) {
	c := newCluster(t, "c-00000000000a")
	dir := filepath.Join(t.TempDir(), "data")
	a, stop := launch(t, c.config(t, dir))
	p := opened(t, c.scripted)
	node := p.hello.GetNode()
	if node.GetId() == "" || node.GetName() != "n1" || node.GetAddr() == "" || node.GetBootId() == "" || len(node.GetDevices()) != 2 ||
		node.GetCpuMilli() <= 0 || node.GetMemoryBytes() <= 0 || node.GetPortMin() != DefaultPortMin || p.hello.GetClusterId() != c.id {
		t.Fatalf("hello %v", p.hello)
	}
	p.out <- &pb.ServerMessage{Message: &pb.ServerMessage_Welcome{Welcome: &pb.Welcome{ClusterId: c.id, HeartbeatMs: 100, ServerAddrs: []string{c.addr}}}}
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	work := shellTask(first, "echo one; echo two; read x < "+gate+"; echo three")
	p.desire(10, true, work)
	p.report(t, first, running)
	id := a.ID()
	stop()

	// The next run needs no token, is the same node, and finds the task.
	cfg := c.config(t, dir)
	cfg.Token, cfg.Join = "", nil
	a, _ = launch(t, cfg)
	p = opened(t, c.scripted)
	if p.hello.GetNode().GetId() != id || len(p.hello.GetTasks()) != 1 || p.hello.GetTasks()[0].GetState() != running || p.hello.GetSeenIndex() != 10 {
		t.Fatalf("hello after the restart %v", p.hello)
	}
	p.out <- &pb.ServerMessage{Message: &pb.ServerMessage_Welcome{Welcome: &pb.Welcome{ClusterId: c.id, HeartbeatMs: 100}}}
	p.desire(11, true, work)
	type answer struct {
		data string
		end  bool
		err  error
	}
	followed := make(chan answer, 1)
	go func() {
		data, end, err := readLogs(c, c.creds, a.Addr(), &pb.ReadLogsRequest{TaskId: first, Follow: true, Offset: 4})
		followed <- answer{data, end, err}
	}()
	if err := os.WriteFile(gate, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	p.report(t, first, succeeded)
	if got := <-followed; got.err != nil || got.data != "two\nthree\n" || !got.end {
		t.Fatalf("followed %+v", got)
	}
	checkLogAccess(t, c, a.Addr())
}

// checkLogAccess reads the ended task's log in other ways, and as other callers.
func checkLogAccess(t *testing.T, c *cluster, addr string) {
	t.Helper()
	if data, end, err := readLogs(c, c.creds, addr, &pb.ReadLogsRequest{TaskId: first, TailLines: 1}); err != nil || data != "three\n" || !end {
		t.Errorf("tail %q %v %v", data, end, err)
	}
	for _, id := range []string{"j-9.e1.r0", "../" + first, "..", "", "."} {
		if _, _, err := readLogs(c, c.creds, addr, &pb.ReadLogsRequest{TaskId: id}); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_NOT_FOUND {
			t.Errorf("log of %q: %v", id, err)
		}
	}
	for _, role := range []pb.MemberRole{pb.MemberRole_MEMBER_ROLE_USER, pb.MemberRole_MEMBER_ROLE_AGENT} {
		creds := c.credentials(t, role, "n-000000000009")
		if _, _, err := readLogs(c, creds, addr, &pb.ReadLogsRequest{TaskId: first}); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_DENIED {
			t.Errorf("log as %v: %v", role, err)
		}
	}
}

func TestDataDirectoryIsRefused(t *testing.T) {
	c, other := newCluster(t, "c-00000000000a"), newCluster(t, "c-00000000000b")
	dir := filepath.Join(t.TempDir(), "data")
	a, stop := launch(t, c.config(t, dir))
	opened(t, c.scripted)
	if _, err := New(c.config(t, dir)); err == nil || !strings.Contains(err.Error(), "another llmos is running on data directory "+dir) {
		t.Errorf("started twice: %v", err)
	}
	id := a.ID()
	stop()
	foreign := other.config(t, dir)
	if _, err := New(foreign); err == nil || !strings.Contains(err.Error(), "belongs to cluster c-00000000000a, and the token admits to cluster c-00000000000b") {
		t.Errorf("another cluster's token: %v", err)
	}
	identity := filepath.Join(dir, identityFile)
	was, err := os.ReadFile(identity)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []struct{ name, content, want string }{
		{"a server's", strings.Replace(string(was), "agent", "server", 1), "belongs to server " + id},
		{"broken", "{", "identity.json in data directory"},
		{"another member's", strings.Replace(string(was), id, "n-ffffffffffff", 1), "but its certificate is of"},
		{"gone", "", "has a folder journal but no identity.json"},
	} {
		if err := os.WriteFile(identity, []byte(change.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if change.content == "" {
			if err := os.Remove(identity); err != nil {
				t.Fatal(err)
			}
		}
		got, err := New(c.config(t, dir))
		if err == nil || !strings.Contains(err.Error(), change.want) {
			t.Errorf("%s: %v, want %q", change.name, err, change.want)
		}
		if err == nil {
			got.Close()
		}
	}
}

func TestFirstStartNeedsAToken(t *testing.T) {
	c := newCluster(t, "c-00000000000a")
	cfg := c.config(t, t.TempDir())
	cfg.Token = ""
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	err = a.Run(context.Background())
	if err == nil || !strings.Contains(err.Error(), "no join token is given") || fault.From(err).Fault.GetHint() == "" {
		t.Fatalf("got %v", err)
	}
}

func TestConfigFaults(t *testing.T) {
	for _, c := range []struct {
		field  string
		change func(*Config)
	}{
		{"data-dir", func(c *Config) { c.DataDir = "" }},
		{"listen", func(c *Config) { c.Listen = "7301" }},
		{"join", func(c *Config) { c.Join = []string{"server"} }},
		{"name", func(c *Config) { c.Name = "a b" }},
		{"port-range", func(c *Config) { c.PortMin = 30000 }},
		{"shared-dir", func(c *Config) { c.SharedDir = "relative" }},
		{"shared-dir", func(c *Config) { c.SharedDir = "/no/such" }},
		{"user", func(c *Config) { c.TaskUser = "nobody-here" }},
		{"labels", func(c *Config) { c.Labels = map[string]string{"": "x"} }},
		{"cpu", func(c *Config) { c.CPUMilli = -1 }},
		{"engine", func(c *Config) { c.Engine = "docker.sock" }},
		{"allow-device", func(c *Config) { c.AllowDevices = []string{"/etc/passwd"} }},
		{"allow-device", func(c *Config) { c.AllowDevices = []string{"/dev/[x"} }},
		{"memory", func(c *Config) { c.MemoryBytes = -1 }},
	} {
		cfg := DefaultConfig()
		cfg.DataDir = "/x"
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		c.change(&cfg)
		if err := cfg.Validate(); err == nil || fault.From(err).Fault.GetField() != c.field || fault.Kind(err) != pb.ErrorKind_ERROR_KIND_INVALID {
			t.Errorf("%s: %v", c.field, err)
		}
	}
}

func TestAdvertisedAddress(t *testing.T) {
	for _, c := range []struct{ listen, advertise, want string }{
		{"127.0.0.1:0", "", "127.0.0.1:99"}, {":7301", "10.1.2.3", "10.1.2.3:99"},
		{":7301", "10.1.2.3:8", "10.1.2.3:8"}, {":7301", "host:0", "host:99"},
	} {
		if got, err := (Config{Listen: c.listen, Advertise: c.advertise}).advertised(99); err != nil || got != c.want {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
	got, err := Config{Listen: "0.0.0.0:1"}.advertised(5)
	if host, _, serr := net.SplitHostPort(got); err != nil || serr != nil || net.ParseIP(host).IsUnspecified() {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestEnvironment(t *testing.T) {
	s := site{nodeID: "n-1", nodeName: "host1", tasks: "/data/tasks", sharedDir: "/shared", taskUser: "work"}
	a := &pb.Assignment{
		Task: &pb.Task{Id: "t-1.e2.r3", JobId: "t-1", Epoch: 2, Rank: 3, LocalRank: 1, Role: "worker", Index: 2},
		Role: &pb.RoleSpec{Ports: []string{"http", "my-debug"}, Env: map[string]string{"B": "2", "A": "1", "LANG": "de_DE", "LLMOS_EPOCH": "9"}},
		Allocation: &pb.Allocation{Ports: []int32{20000, 20001, 20002}, HoldsRendezvous: true,
			Devices: []*pb.DeviceGrant{{DeviceId: "GPU-a"}, {DeviceId: "GPU-b"}}},
		Attempt: &pb.Attempt{WorldSize: 4, RendezvousHost: "10.0.0.1", RendezvousPort: 20000}, JobName: "t", AttemptKey: []byte{1, 2},
	}
	want := `PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
HOME=/data/tasks/t-1.e2.r3/work
USER=work
LANG=de_DE
TMPDIR=/data/tasks/t-1.e2.r3/tmp
RANK=3
WORLD_SIZE=4
LOCAL_RANK=1
LOCAL_WORLD_SIZE=2
MASTER_ADDR=10.0.0.1
MASTER_PORT=20000
CUDA_VISIBLE_DEVICES=GPU-a,GPU-b
LLMOS_JOB_ID=t-1
LLMOS_JOB_NAME=t
LLMOS_TASK_ID=t-1.e2.r3
LLMOS_EPOCH=2
LLMOS_ROLE=worker
LLMOS_ROLE_INDEX=2
LLMOS_NODE_ID=n-1
LLMOS_NODE_NAME=host1
LLMOS_DEVICES=GPU-a,GPU-b
LLMOS_TASK_DIR=/data/tasks/t-1.e2.r3
LLMOS_ATTEMPT_KEY_FILE=/data/tasks/t-1.e2.r3/attempt.key
LLMOS_JOB_DIR=/shared/t-1
LLMOS_PORT_HTTP=20001
LLMOS_PORT_MY_DEBUG=20002
A=1
B=2`
	if got := strings.Join(s.environment(a, 2), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	s.tasks, s.sharedDir = t.TempDir(), t.TempDir()
	if _, err := s.prepare(a, 2); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(s.dir("t-1.e2.r3"), attemptKeyFile)
	info, err := os.Stat(key)
	text, rerr := os.ReadFile(key)
	if err != nil || rerr != nil || info.Mode().Perm() != 0o400 || string(text) != hex.EncodeToString(a.AttemptKey) {
		t.Errorf("the key's file: %v %v %v %q", err, rerr, info, text)
	}
	if info, err := os.Stat(filepath.Join(s.sharedDir, "t-1")); err != nil || !info.IsDir() {
		t.Errorf("the job's folder: %v", err)
	}
}

// A role's limits, devices and image reach the shim; an image has a PATH of its own unless the role sets one.
func TestSpecOfATask(t *testing.T) {
	s := site{nodeID: "n-1", nodeName: "host1", tasks: t.TempDir(), hidden: "/data", engine: "/run/e.sock", allowed: []string{"/dev/fuse"},
		device: func(id string) *pb.Device {
			return map[string]*pb.Device{"GPU-a": {Id: "GPU-a", Path: "/dev/nvidia3"}}[id]
		}}
	a := &pb.Assignment{Task: &pb.Task{Id: "t-1.e1.r0", JobId: "t-1"}, Attempt: &pb.Attempt{WorldSize: 1},
		Allocation: &pb.Allocation{MemoryBytes: 1 << 30, Devices: []*pb.DeviceGrant{{DeviceId: "GPU-a"}}},
		Role:       &pb.RoleSpec{Command: []string{"x"}, Resources: &pb.Resources{DiskBytes: 5, Pids: 7}}}
	spec, err := s.prepare(a, 1)
	if err != nil {
		t.Fatal(err)
	}
	if spec.DiskBytes != 5 || spec.PIDs != 7 || spec.MemoryBytes != 1<<30 || spec.Hidden != "/data" || strings.Join(spec.Devices, " ") != "/dev/nvidia3" ||
		strings.Join(spec.Allowed, " ") != "/dev/fuse" || spec.Image != "" {
		t.Errorf("a process: %+v", spec)
	}
	a.Role.Image = "busybox"
	if spec, err = s.prepare(a, 1); err != nil {
		t.Fatal(err)
	}
	if spec.Image != "busybox" || spec.Engine != "/run/e.sock" || spec.NodeID != "n-1" || strings.Join(spec.DeviceIDs, " ") != "GPU-a" ||
		slices.ContainsFunc(spec.Env, func(v string) bool { return strings.HasPrefix(v, "PATH=") }) {
		t.Errorf("in a container: %+v", spec)
	}
	a.Role.Env = map[string]string{"PATH": "/opt/bin"}
	if spec, err = s.prepare(a, 1); err != nil || !slices.Contains(spec.Env, "PATH=/opt/bin") {
		t.Errorf("with a PATH of the role's: %+v (%v)", spec, err)
	}
}

func TestWhoRunsTasksAsRoot(t *testing.T) {
	root := os.Geteuid() == 0
	if got := (Config{}).RootTasks(); got != root {
		t.Errorf("without a task user: %v, want %v", got, root)
	}
	if (Config{TaskUser: "nobody"}).RootTasks() {
		t.Error("a task user is given, and tasks are said to run as root")
	}
}
