// Package e2e tests llmos as its users meet it: built programs, real processes, the
// sentences on the screen. It looks at no package's insides.
package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"llmos/test/rig"
)

const testTimeout = 3 * time.Minute

// start brings up a cluster for one test.
func start(t *testing.T, servers, agents int, devices string) (context.Context, *rig.Cluster) {
	t.Helper()
	bin, err := rig.Programs()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	c, err := rig.Start(ctx, rig.Config{Bin: bin, Dir: t.TempDir(), Servers: servers, Agents: agents, Devices: devices, Timing: "fast"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			logTails(t, c)
		}
		c.Close()
	})
	return ctx, c
}

func logTails(t *testing.T, c *rig.Cluster) {
	for _, p := range append(append([]*rig.Process{}, c.Servers...), c.Agents...) {
		b, err := os.ReadFile(p.LogFile)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		t.Logf("--- %s\n%s", p.Name, strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}

// said is what a command printed and how it ended.
type said struct {
	out, err string
	code     int
}

// call runs a program with an environment of its own and a deadline.
func call(t *testing.T, env []string, name string, args ...string) said {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%s %v: still running after a minute\n%s%s", filepath.Base(name), args, out.String(), errs.String())
	}
	s := said{out: out.String(), err: errs.String(), code: 0}
	if exit, ok := err.(*exec.ExitError); ok {
		s.code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return s
}

// llmos runs a verb against a cluster.
func llmos(t *testing.T, c *rig.Cluster, args ...string) said {
	t.Helper()
	return call(t, []string{"LLMOS_CLIENT_DIR=" + c.ClientDir()}, c.LLMOS(), args...)
}
