// Command demo shows what llmos is for, in under a minute: three servers and three agents
// as separate processes train a language model together; the leader is killed in the
// middle; the job does not notice. It exits with 0 only when all of it was seen.
// `make demo` runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"llmos/proto/client"
	pb "llmos/proto/llmos/v1"
	"llmos/test/rig"
)

const (
	demoTimeout  = 3 * time.Minute
	killAtStep   = 0.4 // of all steps
	jobFile      = "deploy/jobs/charlm.yaml"
	reportEvery  = 700 * time.Millisecond
	devicesEach  = "2xH100-80GB"
	serversCount = 3
	agentsCount  = 3
)

func main() {
	bin := flag.String("bin", "bin", "folder of the built programs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	err := run(ctx, *bin)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo: FAILED:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin string) error {
	began := time.Now()
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "llmos-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	title("Three servers and three agents start, as six processes with mutual TLS")
	cluster, err := rig.Start(ctx, rig.Config{Bin: bin, Dir: dir, Servers: serversCount, Agents: agentsCount, Devices: devicesEach})
	if err != nil {
		return err
	}
	defer cluster.Close()
	cl, err := cluster.Client()
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := show(ctx, cluster, "status"); err != nil {
		return err
	}
	if err := show(ctx, cluster, "nodes"); err != nil {
		return err
	}

	title("Four ranks train a character-level language model on this repository's documentation")
	s := &story{cluster: cluster, client: cl}
	if err := s.train(ctx); err != nil {
		return err
	}
	title("The job is done, and the ledger is back to zero")
	if err := s.epilogue(ctx); err != nil {
		return err
	}
	cluster.Close()
	if left := cluster.TaskProcesses(); len(left) > 0 {
		return fmt.Errorf("processes are left: %v", left)
	}
	fmt.Printf("\nAll of it in %.0f s; nothing is left running. Next: bin/llmos dev\n", time.Since(began).Seconds())
	return nil
}

func title(text string) { fmt.Printf("\n\x1b[1m%s\x1b[0m\n", text) }

// show runs a verb as a person would and prints it with what it said.
func show(ctx context.Context, c *rig.Cluster, args ...string) error {
	out, err := c.Run(ctx, args...)
	if err != nil {
		return err
	}
	fmt.Printf("\n$ llmos %s\n%s", strings.Join(args, " "), out)
	return nil
}

// story follows the one job.
type story struct {
	cluster *rig.Cluster
	client  *client.Client
	job     string
	losses  []float64
	killed  string // server that was killed
	lastLog time.Time
	final   *pb.JobView
}

func (s *story) train(ctx context.Context) error {
	out, err := s.cluster.Run(ctx, "run", jobFile)
	if err != nil {
		return err
	}
	fmt.Printf("\n$ llmos run %s\n%s\n", jobFile, out)
	jobs, err := s.client.ListJobs(ctx, &pb.ListJobsRequest{All: true})
	if err != nil {
		return err
	}
	if len(jobs.Jobs) != 1 {
		return fmt.Errorf("%d jobs are there, want the one submitted", len(jobs.Jobs))
	}
	s.job = jobs.Jobs[0].Job.Id
	if err := s.client.WatchJob(ctx, s.job, func(v *pb.JobView) error { return s.see(ctx, v) }); err != nil {
		return fmt.Errorf("watch the job: %w", err)
	}
	return s.verdict()
}

// see is called with every view of the job.
func (s *story) see(ctx context.Context, v *pb.JobView) error {
	s.final = v
	var rank0 *pb.Progress
	for _, p := range v.Progress {
		if p.Rank == 0 {
			rank0 = p
		}
	}
	if rank0 == nil || rank0.Step == 0 {
		return nil
	}
	s.losses = append(s.losses, rank0.Values["loss"])
	if time.Since(s.lastLog) >= reportEvery || rank0.Step == rank0.Steps {
		s.lastLog = time.Now()
		fmt.Printf("  step %4d/%d  loss %.3f  %6.0f tokens/s  epoch %d  %s\n", rank0.Step, rank0.Steps,
			rank0.Values["loss"], rank0.Values["tokens_per_s"], v.Job.Epoch, sparkline(s.losses))
	}
	if s.killed == "" && float64(rank0.Step) >= killAtStep*float64(rank0.Steps) {
		return s.killLeader(ctx)
	}
	return nil
}

func (s *story) killLeader(ctx context.Context) error {
	leader, err := s.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	s.killed = leader.Addr
	leader.Kill()
	began := time.Now()
	fmt.Printf("\n\x1b[31m  kill -9 the leader, %s at %s\x1b[0m\n", leader.Name, leader.Addr)
	for {
		callCtx, cancel := context.WithTimeout(ctx, 2*time.Second)
		now, err := s.cluster.Leader(callCtx)
		cancel()
		if err == nil && now.Addr != s.killed {
			fmt.Printf("\x1b[32m  %s at %s leads after %.1f s; the ranks never stopped\x1b[0m\n\n", now.Name, now.Addr, time.Since(began).Seconds())
			return nil
		}
		if ctx.Err() != nil {
			return errors.New("no new leader was elected")
		}
	}
}

// verdict holds the run to what the title promised.
func (s *story) verdict() error {
	job := s.final.GetJob()
	switch {
	case job.GetState() != pb.JobState_JOB_STATE_SUCCEEDED:
		return fmt.Errorf("the job ended as %v: %s", job.GetState(), job.GetReason())
	case s.killed == "":
		return errors.New("the job ended before the leader could be killed")
	case job.Epoch != 1:
		return fmt.Errorf("the job was restarted: epoch %d", job.Epoch)
	case len(s.losses) < 2 || s.losses[len(s.losses)-1] >= s.losses[0]:
		return fmt.Errorf("the loss did not fall: %v", s.losses)
	}
	return nil
}

func (s *story) epilogue(ctx context.Context) error {
	out, err := s.cluster.Run(ctx, "logs", "--rank", "0", "--tail", "14", s.job)
	if err != nil {
		return err
	}
	fmt.Printf("\n$ llmos logs --rank 0 --tail 14 %s\n%s", s.job, out)
	for _, args := range [][]string{{"ps", "-a"}, {"nodes"}, {"status"}} {
		if err := show(ctx, s.cluster, args...); err != nil {
			return err
		}
	}
	nodes, err := s.client.ListNodes(ctx, &pb.ListNodesRequest{})
	if err != nil {
		return err
	}
	for _, n := range nodes.Nodes {
		held := n.Account.CpuAllocated + n.Account.MemoryAllocated
		for _, d := range n.Account.Devices {
			held += int64(d.ShareAllocated)
		}
		if held != 0 {
			return fmt.Errorf("node %s still holds resources of a finished job", n.Node.Name)
		}
	}
	return nil
}

const sparkWidth = 24

// sparkline draws values as a row of blocks, the newest last.
func sparkline(values []float64) string {
	blocks := []rune("▁▂▃▄▅▆▇█")
	step := max(1, (len(values)+sparkWidth-1)/sparkWidth)
	lo, hi := values[0], values[0]
	for _, v := range values {
		lo, hi = min(lo, v), max(hi, v)
	}
	var b strings.Builder
	for i := 0; i < len(values); i += step {
		level := 0
		if hi > lo {
			level = int((values[i] - lo) / (hi - lo) * float64(len(blocks)-1))
		}
		b.WriteRune(blocks[level])
	}
	return b.String()
}
