// Command control measures the control plane on this machine: three servers and three
// agents as real processes on loopback with mutual TLS, real tasks of a trivial program.
// It prints a table with the spread of every figure and ends with one line of JSON. It
// judges nothing. `make bench-control` runs it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sort"
	"syscall"
	"time"

	"llmos/test/rig"
)

type options struct {
	bin       string
	rounds    int
	jobs      int
	conns     int
	starts    int
	failovers int
	idle      time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "folder of the built programs")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of the throughput measurement")
	flag.IntVar(&o.jobs, "jobs", 500, "jobs a round")
	flag.IntVar(&o.conns, "conns", 8, "connections that submit")
	flag.IntVar(&o.starts, "starts", 100, "jobs of the start latency measurement, one at a time")
	flag.IntVar(&o.failovers, "failovers", 7, "how often the leader is killed")
	flag.DurationVar(&o.idle, "idle", 20*time.Second, "how long the idle cluster is watched")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-control:", err)
		os.Exit(1)
	}
}

// figures are the results; the names hold the units.
type figures struct {
	SubmitsPerS    float64 `json:"submits_per_s"`
	SubmitP50      float64 `json:"submit_p50_ms"`
	SubmitP99      float64 `json:"submit_p99_ms"`
	StartP50       float64 `json:"start_p50_ms"`
	StartP99       float64 `json:"start_p99_ms"`
	JobsPerS       float64 `json:"jobs_per_s"`
	FailoverP50    float64 `json:"failover_p50_ms"`
	FailoverMax    float64 `json:"failover_max_ms"`
	ServerRSS      float64 `json:"server_rss_mib"`
	AgentRSS       float64 `json:"agent_rss_mib"`
	ServerIdleCPU  float64 `json:"server_idle_cpu_pct"`
	AgentIdleCPU   float64 `json:"agent_idle_cpu_pct"`
	BinaryMiB      float64 `json:"binary_mib"`
	AloneSubmitP50 float64 `json:"alone_submit_p50_ms"`
	AloneSubmitP99 float64 `json:"alone_submit_p99_ms"`
}

func run(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "llmos-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cluster, err := rig.Start(ctx, rig.Config{Bin: bin, Dir: dir, Servers: 3, Agents: 3, Devices: "8xH100-80GB"})
	if err != nil {
		return err
	}
	defer cluster.Close()
	stamp, err := buildStamp(dir)
	if err != nil {
		return err
	}
	m, err := newMeter(ctx, o, cluster, stamp, dir)
	if err != nil {
		return err
	}
	defer m.client.Close()
	fmt.Printf("3 servers, 3 agents on loopback, mutual TLS, default timing; %d rounds of %d jobs over %d connections\n", o.rounds, o.jobs, o.conns)
	var f figures
	for _, step := range []func(*figures) error{m.idle, m.starts, m.throughput, m.failover, m.binary} {
		if err := step(&f); err != nil {
			return err
		}
	}
	line, err := json.Marshal(f)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	return nil
}

// stampSource is the trivial task: its first instruction of note reads the clock and
// appends it to a file.
const stampSource = `
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char **argv) {
	struct timespec t;
	char line[256];
	clock_gettime(CLOCK_REALTIME, &t);
	const char *job = getenv("LLMOS_JOB_ID");
	int n = snprintf(line, sizeof line, "%s %lld\n", job ? job : "-", t.tv_sec * 1000000000LL + t.tv_nsec);
	int fd = open(argv[1], O_CREAT | O_APPEND | O_WRONLY, 0666);
	if (fd < 0 || write(fd, line, n) != n) return 1;
	return 0;
}
`

func buildStamp(dir string) (string, error) {
	source, program := filepath.Join(dir, "stamp.c"), filepath.Join(dir, "stamp")
	if err := os.WriteFile(source, []byte(stampSource), 0o644); err != nil {
		return "", err
	}
	if out, err := exec.Command("gcc", "-O2", "-static", "-o", program, source).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the trivial task: %w: %s", err, out)
	}
	return program, nil
}

// quantile of sorted values, by the nearest rank.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := int(q*float64(len(sorted))+0.5) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

func sorted(values []float64) []float64 {
	out := append([]float64{}, values...)
	sort.Float64s(out)
	return out
}

// show prints one figure with its spread.
func show(name, unit string, values []float64) {
	s := sorted(values)
	fmt.Printf("  %-44s median %8.1f %-6s min %8.1f  max %8.1f  n=%d\n", name, quantile(s, 0.5), unit, quantile(s, 0), quantile(s, 1), len(s))
}
