// Command agent measures what an agent costs its host while it looks after many tasks that
// do nothing: its processor time and memory, and those of the shims, one a task. It starts
// one server and one agent as real processes and prints a line of JSON at the end. It judges
// nothing. `make bench-agent` runs it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	pb "llmos/proto/llmos/v1"
	"llmos/test/rig"
)

// tick is the unit of processor time in /proc.
const tick = 10 * time.Millisecond

type options struct {
	bin    string
	tasks  int
	settle time.Duration
	watch  time.Duration
}

// figures are the results; the names hold the units. The shims' memory is what they share
// with nobody and a part of what they share (PSS).
type figures struct {
	Tasks         int     `json:"tasks"`
	AgentCPU      float64 `json:"agent_cpu_pct"`
	AgentRSS      float64 `json:"agent_rss_mib"`
	AgentPeak     float64 `json:"agent_peak_mib"`
	ShimsCPU      float64 `json:"shims_cpu_pct"`
	ShimPSS       float64 `json:"shim_pss_mib_each"`
	AgentIdleCPU  float64 `json:"agent_without_tasks_cpu_pct"`
	StartSeconds  float64 `json:"start_all_s"`
	WatchedSecond float64 `json:"watched_s"`
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "folder of the built programs")
	flag.IntVar(&o.tasks, "tasks", 200, "idle tasks")
	flag.DurationVar(&o.settle, "settle", 15*time.Second, "how long to wait before each measurement")
	flag.DurationVar(&o.watch, "watch", 60*time.Second, "how long to measure")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-agent:", err)
		os.Exit(1)
	}
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
	cluster, err := rig.Start(ctx, rig.Config{Bin: bin, Dir: dir, Servers: 1, Agents: 1, Devices: "none"})
	if err != nil {
		return err
	}
	defer cluster.Close()
	agent := cluster.Agents[0]
	defer agent.KillHost()
	f := figures{Tasks: o.tasks, WatchedSecond: o.watch.Seconds()}
	if err := pause(ctx, o.settle); err != nil {
		return err
	}
	if f.AgentIdleCPU, _, err = busy(ctx, o.watch/2, []int{agent.Pid()}, nil); err != nil {
		return err
	}
	began := time.Now()
	if err := startTasks(ctx, cluster, o.tasks); err != nil {
		return err
	}
	f.StartSeconds = time.Since(began).Seconds()
	if err := pause(ctx, o.settle); err != nil {
		return err
	}
	shims := shimsOf(agent)
	if f.AgentCPU, f.ShimsCPU, err = busy(ctx, o.watch, []int{agent.Pid()}, shims); err != nil {
		return err
	}
	f.AgentRSS, f.AgentPeak = status(agent.Pid(), "VmRSS:"), status(agent.Pid(), "VmHWM:")
	for _, pid := range shims {
		f.ShimPSS += pss(pid) / float64(len(shims))
	}
	fmt.Printf("%d idle tasks: agent %.2f %% of one CPU, %.1f MiB (peak %.1f); %d shims %.2f %% together, %.1f MiB each\n",
		o.tasks, f.AgentCPU, f.AgentRSS, f.AgentPeak, len(shims), f.ShimsCPU, f.ShimPSS)
	line, err := json.Marshal(f)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// startTasks submits one job and waits until all of its tasks run.
func startTasks(ctx context.Context, cluster *rig.Cluster, tasks int) error {
	c, err := cluster.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	spec := &pb.JobSpec{Name: "idle", Kind: pb.JobKind_JOB_KIND_BATCH, Priority: 50, Roles: []*pb.RoleSpec{{Name: "worker",
		Count: int32(tasks), Command: []string{"sleep", "86400"}, Resources: &pb.Resources{CpuMilli: 1, MemoryBytes: 4 << 20}}}}
	answer, err := c.SubmitJob(ctx, &pb.SubmitJobRequest{RequestId: "bench-agent", Spec: spec})
	if err != nil {
		return err
	}
	api := pb.NewClusterServiceClient(c)
	for {
		v, err := api.GetJob(ctx, &pb.GetJobRequest{JobId: answer.JobId})
		if err != nil {
			return err
		}
		running := 0
		for _, t := range v.Tasks {
			if t.State == pb.TaskState_TASK_STATE_RUNNING {
				running++
			}
		}
		if running == tasks {
			return nil
		}
		if s := v.Job.GetState(); s != pb.JobState_JOB_STATE_PENDING && s != pb.JobState_JOB_STATE_RUNNING {
			return fmt.Errorf("the job is %s: %s", s, v.Job.GetReason())
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// shimsOf lists the agent's shims that have a task.
func shimsOf(agent *rig.Process) (shims []int) {
	for _, pid := range agent.Children() {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.Contains(string(cmdline), "\x00shim\x00") {
			shims = append(shims, pid)
		}
	}
	return shims
}

// busy gives the processor time of two sets of processes in per cent of one CPU.
func busy(ctx context.Context, d time.Duration, a, b []int) (aPercent, bPercent float64, err error) {
	began, a0, b0 := time.Now(), ticks(a), ticks(b)
	if err := pause(ctx, d); err != nil {
		return 0, 0, err
	}
	passed := time.Since(began)
	percent := func(n int64) float64 { return 100 * float64(time.Duration(n)*tick) / float64(passed) }
	return percent(ticks(a) - a0), percent(ticks(b) - b0), nil
}

func ticks(pids []int) (sum int64) {
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
		user, _ := strconv.ParseInt(fields[11], 10, 64)
		system, _ := strconv.ParseInt(fields[12], 10, 64)
		sum += user + system
	}
	return sum
}

// status reads a size of /proc/PID/status, in MiB.
func status(pid int, key string) float64 {
	return sizeIn(fmt.Sprintf("/proc/%d/status", pid), key)
}

func pss(pid int) float64 { return sizeIn(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:") }

func sizeIn(path, key string) float64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if value, found := strings.CutPrefix(line, key); found {
			kib, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
			return kib / 1024
		}
	}
	return 0
}
