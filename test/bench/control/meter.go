package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"llmos/proto/client"
	pb "llmos/proto/llmos/v1"
	"llmos/test/rig"
)

const (
	pollEvery    = 5 * time.Millisecond
	roundTimeout = 3 * time.Minute
	ticksPerS    = 100
)

// meter takes the measurements on one cluster.
type meter struct {
	ctx     context.Context
	o       options
	cluster *rig.Cluster
	client  *client.Client
	stamp   string
	dir     string
	request atomic.Int64
}

func newMeter(ctx context.Context, o options, c *rig.Cluster, stamp, dir string) (*meter, error) {
	cl, err := c.Client()
	return &meter{ctx: ctx, o: o, cluster: c, client: cl, stamp: stamp, dir: dir}, err
}

// submit submits one trivial job whose task writes to the file.
func (m *meter) submit(ctx context.Context, cl *client.Client, file string) (string, error) {
	answer, err := cl.SubmitJob(ctx, &pb.SubmitJobRequest{
		RequestId: fmt.Sprintf("bench-%d", m.request.Add(1)),
		Spec: &pb.JobSpec{GenerateName: "bench", Kind: pb.JobKind_JOB_KIND_BATCH, Priority: 50,
			Roles: []*pb.RoleSpec{{Name: "task", Count: 1, Command: []string{m.stamp, file},
				Resources: &pb.Resources{CpuMilli: 10, MemoryBytes: 1 << 20}}}},
	})
	if err != nil {
		return "", err
	}
	return answer.JobId, nil
}

// idle watches the processes while nothing is asked of them.
func (m *meter) idle(f *figures) error {
	all := append(append([]*rig.Process{}, m.cluster.Servers...), m.cluster.Agents...)
	before := make([]int64, len(all))
	for i, p := range all {
		before[i] = p.CPUTicks()
	}
	timer := time.NewTimer(m.o.idle)
	select {
	case <-m.ctx.Done():
		return m.ctx.Err()
	case <-timer.C:
	}
	rss, cpu := map[string][]float64{}, map[string][]float64{}
	for i, p := range all {
		rss[p.Kind] = append(rss[p.Kind], float64(p.MemoryRSS())/(1<<20))
		cpu[p.Kind] = append(cpu[p.Kind], float64(p.CPUTicks()-before[i])/ticksPerS/m.o.idle.Seconds()*100)
	}
	for _, kind := range []string{"server", "agent"} {
		show("idle "+kind+" resident memory", "MiB", rss[kind])
		show("idle "+kind+" processor, of one core", "%", cpu[kind])
	}
	f.ServerRSS, f.AgentRSS = quantile(sorted(rss["server"]), 0.5), quantile(sorted(rss["agent"]), 0.5)
	f.ServerIdleCPU, f.AgentIdleCPU = quantile(sorted(cpu["server"]), 0.5), quantile(sorted(cpu["agent"]), 0.5)
	return nil
}

// starts submits one job at a time and compares the submit's time with the task's own.
func (m *meter) starts(f *figures) error {
	file := filepath.Join(m.dir, "starts")
	var acks, latencies []float64
	for i := range m.o.starts + 3 {
		began := time.Now()
		id, err := m.submit(m.ctx, m.client, file)
		if err != nil {
			return err
		}
		ack := time.Since(began)
		at, err := m.await(file, id)
		if err != nil {
			return err
		}
		if i < 3 { // warm-up
			continue
		}
		acks = append(acks, float64(ack.Microseconds())/1000)
		latencies = append(latencies, float64(at-began.UnixNano())/1e6)
	}
	show("one at a time: submit acknowledged", "ms", acks)
	show("one at a time: submit to first instruction", "ms", latencies)
	s := sorted(latencies)
	f.StartP50, f.StartP99 = quantile(s, 0.5), quantile(s, 0.99)
	a := sorted(acks)
	f.AloneSubmitP50, f.AloneSubmitP99 = quantile(a, 0.5), quantile(a, 0.99)
	return nil
}

// await reads the file until the job's line is there and gives its time in nanoseconds.
func (m *meter) await(file, job string) (int64, error) {
	deadline := time.Now().Add(roundTimeout)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for time.Now().Before(deadline) {
		lines, err := stamps(file)
		if err != nil {
			return 0, err
		}
		if at, ok := lines[job]; ok {
			return at, nil
		}
		select {
		case <-m.ctx.Done():
			return 0, m.ctx.Err()
		case <-tick.C:
		}
	}
	return 0, fmt.Errorf("job %s did not run within %v", job, roundTimeout)
}

func stamps(file string) (map[string]int64, error) {
	out := map[string]int64{}
	f, err := os.Open(file)
	if os.IsNotExist(err) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		job, at, ok := strings.Cut(scanner.Text(), " ")
		ns, err := strconv.ParseInt(at, 10, 64)
		if ok && err == nil {
			out[job] = ns
		}
	}
	return out, nil
}

// throughput submits many jobs over several connections and waits for all to complete.
func (m *meter) throughput(f *figures) error {
	var rates, jobRates, latencies []float64
	for round := range m.o.rounds {
		rate, jobRate, lat, err := m.round(filepath.Join(m.dir, fmt.Sprintf("round%d", round)))
		if err != nil {
			return fmt.Errorf("round %d: %w", round+1, err)
		}
		rates, jobRates, latencies = append(rates, rate), append(jobRates, jobRate), append(latencies, lat...)
	}
	show("submits acknowledged", "/s", rates)
	show("latency of these submits", "ms", latencies)
	show("trivial jobs, first submit to all complete", "/s", jobRates)
	s := sorted(latencies)
	f.SubmitsPerS, f.JobsPerS = quantile(sorted(rates), 0.5), quantile(sorted(jobRates), 0.5)
	f.SubmitP50, f.SubmitP99 = quantile(s, 0.5), quantile(s, 0.99)
	return nil
}

func (m *meter) round(file string) (rate, jobRate float64, latencies []float64, err error) {
	ctx, cancel := context.WithTimeout(m.ctx, roundTimeout)
	defer cancel()
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		next  atomic.Int64
		first error
	)
	began := time.Now()
	for range m.o.conns {
		cl, err := m.cluster.Client()
		if err != nil {
			return 0, 0, nil, err
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer cl.Close()
			for next.Add(1) <= int64(m.o.jobs) {
				t := time.Now()
				_, err := m.submit(ctx, cl, file)
				mu.Lock()
				latencies = append(latencies, float64(time.Since(t).Microseconds())/1000)
				if err != nil && first == nil {
					first = err
				}
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	if first != nil {
		return 0, 0, nil, first
	}
	rate = float64(m.o.jobs) / time.Since(began).Seconds()
	if err := m.untilIdle(ctx); err != nil {
		return 0, 0, nil, err
	}
	jobRate = float64(m.o.jobs) / time.Since(began).Seconds()
	ran, err := stamps(file)
	if err == nil && len(ran) != m.o.jobs {
		err = fmt.Errorf("%d of %d jobs ran", len(ran), m.o.jobs)
	}
	return rate, jobRate, latencies, err
}

// untilIdle waits until no job is pending or running.
func (m *meter) untilIdle(ctx context.Context) error {
	tick := time.NewTicker(10 * pollEvery)
	defer tick.Stop()
	for {
		status, err := m.client.GetStatus(ctx, &pb.GetStatusRequest{})
		if err != nil {
			return err
		}
		if status.JobsPending+status.JobsRunning == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d jobs pending, %d running: %w", status.JobsPending, status.JobsRunning, ctx.Err())
		case <-tick.C:
		}
	}
}

// failover kills the leader and measures the time to the next acknowledged write.
func (m *meter) failover(f *figures) error {
	var times []float64
	file := filepath.Join(m.dir, "failover")
	for range m.o.failovers {
		leader, err := m.cluster.Leader(m.ctx)
		if err != nil {
			return err
		}
		leader.Kill()
		began := time.Now()
		if _, err := m.submit(m.ctx, m.client, file); err != nil {
			return fmt.Errorf("submit after the leader's death: %w", err)
		}
		times = append(times, float64(time.Since(began).Microseconds())/1000)
		if err := leader.Start(); err != nil {
			return err
		}
		ready, cancel := context.WithTimeout(m.ctx, time.Minute)
		err = m.cluster.WaitReady(ready)
		cancel()
		if err != nil {
			return err
		}
	}
	show("leader kill -9 to next acknowledged write", "ms", times)
	s := sorted(times)
	f.FailoverP50, f.FailoverMax = quantile(s, 0.5), quantile(s, 1)
	return nil
}

func (m *meter) binary(f *figures) error {
	info, err := os.Stat(m.cluster.LLMOS())
	if err != nil {
		return err
	}
	f.BinaryMiB = float64(info.Size()) / (1 << 20)
	fmt.Printf("  %-44s        %8.1f MiB\n", "binary", f.BinaryMiB)
	return nil
}
