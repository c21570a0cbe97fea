package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"llmos/proto/client"
	pb "llmos/proto/llmos/v1"
	"llmos/test/rig"
)

// Kueue's own generator of workloads (kubernetes-sigs/kueue, test/performance/scheduler/
// configs/baseline): 5 cohorts of 6 queues, each with a nominal quota of 20 CPUs and up to
// 100 more from its cohort, and 500 workloads a queue.
const (
	cohorts       = 5
	queuesOf      = 6
	nominalCPUs   = 20
	borrowCPUs    = 100
	cohortCPUs    = nominalCPUs * queuesOf
	kueueSeconds  = 351.0 // what Kueue took
	kueueBoundS   = 66.0  // work of a cohort / its capacity
	submitTimeout = time.Minute
	kueueTimeout  = 8 * time.Minute
)

// class is one kind of workload of every queue.
type class struct {
	name     string
	count    int
	cpus     int64
	run      time.Duration
	every    time.Duration
	priority int32
}

var classes = []class{
	{"small", 350, 1, 200 * time.Millisecond, 100 * time.Millisecond, 25},
	{"medium", 100, 5, 500 * time.Millisecond, 500 * time.Millisecond, 50},
	{"large", 50, 20, 1000 * time.Millisecond, 1200 * time.Millisecond, 100},
}

// kueueResult is how the workloads fared.
type kueueResult struct {
	Workloads int                `json:"workloads"`
	TotalS    float64            `json:"total_s"`
	BoundS    float64            `json:"bound_s"`
	KueueS    float64            `json:"kueue_s"`
	WaitS     map[string]float64 `json:"wait_mean_s"`
	CPUPart   float64            `json:"cpu_used"`
}

// generator plays the users: it submits at the times of the classes, whatever happens.
type generator struct {
	client *client.Client
	host   *host
	mu     sync.Mutex
	came   map[string]time.Time // by job name
	err    error
}

// kueue runs one server process with a scripted host of all the CPUs, whose tasks take their
// run times by the clock but do nothing.
func kueue(ctx context.Context, bin string) (kueueResult, error) {
	ctx, cancel := context.WithTimeout(ctx, kueueTimeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "llmos-kueue-")
	if err != nil {
		return kueueResult{}, err
	}
	defer os.RemoveAll(dir)
	if bin, err = filepath.Abs(bin); err != nil {
		return kueueResult{}, err
	}
	cluster, err := rig.Start(ctx, rig.Config{Bin: bin, Dir: dir, Servers: 1})
	if err != nil {
		return kueueResult{}, fmt.Errorf("start a server: %w", err)
	}
	defer cluster.Close()
	c, err := cluster.Client()
	if err != nil {
		return kueueResult{}, err
	}
	defer c.Close()
	if _, err := c.SetQueues(ctx, &pb.SetQueuesRequest{Queues: kueueQueues()}); err != nil {
		return kueueResult{}, fmt.Errorf("make the queues: %w", err)
	}
	h, err := joinHost(ctx, cluster, cohorts*cohortCPUs)
	if err != nil {
		return kueueResult{}, err
	}
	defer h.close()
	g := &generator{client: c, host: h, came: map[string]time.Time{}}
	return g.run(ctx)
}

func kueueQueues() []*pb.Queue {
	limit := func(nominal, borrow int64) []*pb.QuotaLimit {
		return []*pb.QuotaLimit{{Resource: "cpu", Nominal: nominal * 1000, Borrow: borrow * 1000, Lend: -1}}
	}
	var queues []*pb.Queue
	for c := range cohorts {
		cohort := fmt.Sprintf("cohort%d", c)
		queues = append(queues, &pb.Queue{Name: cohort, Weight: 1, Limits: limit(cohortCPUs, 0)})
		for q := range queuesOf {
			queues = append(queues, &pb.Queue{Name: fmt.Sprintf("%s/q%d", cohort, q), Parent: cohort, Weight: 1, Limits: limit(nominalCPUs, borrowCPUs)})
		}
	}
	return queues
}

func (g *generator) run(ctx context.Context) (kueueResult, error) {
	began := time.Now()
	var users sync.WaitGroup
	total := 0
	for c := range cohorts {
		for q := range queuesOf {
			for _, class := range classes {
				total += class.count
				users.Go(func() { g.submit(ctx, fmt.Sprintf("cohort%d/q%d", c, q), class, began) })
			}
		}
	}
	users.Wait()
	if g.err != nil {
		return kueueResult{}, g.err
	}
	if err := g.host.waitDone(ctx, total); err != nil {
		return kueueResult{}, err
	}
	r := kueueResult{Workloads: total, TotalS: time.Since(began).Seconds(), BoundS: kueueBoundS, KueueS: kueueSeconds, WaitS: map[string]float64{}}
	for _, class := range classes {
		sum, n := 0.0, 0
		for name, came := range g.came {
			if strings.HasPrefix(name, class.name) {
				sum += g.host.started[name].Sub(came).Seconds()
				n++
			}
		}
		r.WaitS[class.name] = sum / float64(n)
		r.CPUPart += float64(class.count*cohorts*queuesOf) * float64(class.cpus) * class.run.Seconds()
	}
	r.CPUPart /= r.TotalS * cohorts * cohortCPUs
	return r, nil
}

// submit submits the workloads of one class of one queue when they are due.
func (g *generator) submit(ctx context.Context, queue string, class class, began time.Time) {
	for i := range class.count {
		due := time.NewTimer(time.Until(began.Add(time.Duration(i+1) * class.every)))
		select {
		case <-due.C:
		case <-ctx.Done():
			due.Stop()
			return
		}
		name := fmt.Sprintf("%s-%s-%d", class.name, strings.ReplaceAll(queue, "/", "-"), i)
		came := time.Now()
		call, cancel := context.WithTimeout(ctx, submitTimeout)
		_, err := g.client.SubmitJob(call, &pb.SubmitJobRequest{Spec: &pb.JobSpec{Name: name, Kind: pb.JobKind_JOB_KIND_BATCH, Queue: queue,
			Priority: class.priority, Roles: []*pb.RoleSpec{{Name: "worker", Count: 1, Command: []string{"virtual", class.run.String()},
				Resources: &pb.Resources{CpuMilli: class.cpus * 1000, MemoryBytes: 1 << 20}}}}})
		cancel()
		g.mu.Lock()
		g.came[name] = came
		if err != nil && g.err == nil {
			g.err = fmt.Errorf("submit %s: %w", name, err)
		}
		g.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// show prints the result beside Kueue's.
func (r kueueResult) show() {
	fmt.Printf("\nKueue's generator: %d workloads in %d queues of %d cohorts, one server process, virtual tasks in real time\n", r.Workloads, cohorts*queuesOf, cohorts)
	fmt.Printf("  %-12s %8s %12s %12s %12s %8s\n", "", "total s", "wait small", "wait medium", "wait large", "CPU %")
	fmt.Printf("  %-12s %8.1f %12.2f %12.2f %12.2f %8.1f\n", "llmos", r.TotalS, r.WaitS["small"], r.WaitS["medium"], r.WaitS["large"], 100*r.CPUPart)
	fmt.Printf("  %-12s %8.1f %12.1f %12.1f %12.1f %8.1f\n", "Kueue", kueueSeconds, 215.0, 76.8, 16.5, 55.9)
	fmt.Printf("  lower bound %.0f s; llmos took %.2f times as long\n", kueueBoundS, r.TotalS/kueueBoundS)
}
