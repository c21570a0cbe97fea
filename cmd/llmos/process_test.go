package main

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// pretended is a process that is ready at once and runs until its context ends.
type pretended struct{ ready chan struct{} }

func (p pretended) Ready() <-chan struct{} { return p.ready }

func (p pretended) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// TestSystemdIsTold holds serve to the words that Type=notify waits for.
func TestSystemdIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	a, _, _ := testApp()
	a.getenv = func(name string) (string, bool) { return path, name == "NOTIFY_SOCKET" }
	ctx, cancel := context.WithCancel(t.Context())
	p := pretended{ready: make(chan struct{})}
	close(p.ready)
	ended := make(chan error, 1)
	go func() { ended <- a.serve(ctx, p, cancel) }()
	buf := make([]byte, 64)
	for _, want := range []string{"READY=1", "STOPPING=1"} {
		n, err := socket.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("told %q (%v), want %q", buf[:n], err, want)
		}
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestProcessConfigs(t *testing.T) {
	a, _, _ := testApp()
	s := &serverFlags{processFlags: processFlags{dataDir: "s", listen: "127.0.0.1:1", join: []string{"h:1"}, token: "t", name: "n", logFormat: "json", logLevel: "warn"},
		clientDir: "/c", timing: "fast", snapshots: 9}
	cfg, err := a.serverConfig(s)
	if err != nil || cfg.DataDir != "/here/s" || cfg.ClientDir != "/c" || cfg.Timing.SnapshotThreshold != 9 || !cfg.Timing.FastGossip || cfg.Token != "t" || cfg.Validate() != nil {
		t.Errorf("server: %+v (%v, %v)", cfg, err, cfg.Validate())
	}
	g := &agentFlags{processFlags: processFlags{dataDir: "/a", listen: ":1", logFormat: "text", logLevel: "info"}, ports: "100-200",
		labels: []string{"zone=a=b"}, cpu: "1.5", memory: "2Gi", timing: "lan", devices: "none", noGossip: true}
	got, err := a.agentConfig(g)
	if err != nil || got.PortMin != 100 || got.PortMax != 200 || got.Labels["zone"] != "a=b" || got.CPUMilli != 1500 || got.MemoryBytes != 2<<30 || got.Gossip || got.Validate() != nil {
		t.Errorf("agent: %+v (%v, %v)", got, err, got.Validate())
	}
	for _, text := range []string{"", "1", "5-2", "0-9", "1-70000", "a-b"} {
		if _, _, err := portRange(text); err == nil || !strings.Contains(err.Error(), "is not a range of ports") {
			t.Errorf("portRange(%q): %v", text, err)
		}
	}
}

// TestVariablesAreDefaults holds variables to count less than flags and more than defaults.
func TestVariablesAreDefaults(t *testing.T) {
	a, _, _ := testApp()
	a.getenv = func(name string) (string, bool) { return "10.0.0.1:7300,10.0.0.2:7300", name == "LLMOS_JOIN" }
	for _, args := range [][]string{nil, {"--join", "h:1"}} {
		cmd := a.agentCommand()
		if err := cmd.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		if err := a.fromEnvironment(cmd); err != nil {
			t.Fatal(err)
		}
		got, _ := cmd.Flags().GetStringSlice("join")
		if want := 2 - len(args)/2; len(got) != want {
			t.Errorf("with %v: %v", args, got)
		}
	}
	a.getenv = func(name string) (string, bool) { return "soon", name == "LLMOS_PORT_RANGE" || name == "LLMOS_SERVER" }
	if cmd := a.psCommand(); a.fromEnvironment(cmd) != nil {
		t.Error("a server's address is any text")
	}
}
