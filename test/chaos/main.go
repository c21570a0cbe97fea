// Command chaos breaks a cluster of real processes under load and checks what it promised.
// It starts three servers and three agents (each in a network namespace of its own when it
// may), submits and stops jobs of every shape (gangs, arrays, chains, elastic ones, in queues
// with quotas and of several priorities), changes the policy and the queue tree, drains
// nodes, and meanwhile kills, pauses, restarts and cuts off processes at random. At the end
// it heals everything and judges from what clients were told, from what it saw while things
// broke, and from what the tasks themselves wrote. `make chaos` runs it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"llmos/test/rig"
)

const (
	servers        = 3
	agents         = 3
	devices        = "4xH100-80GB"
	clients        = 6
	settleTimeout  = 90 * time.Second
	judgeTimeout   = 60 * time.Second
	minutesForFull = 5 // a run this long must meet the full minimums
)

type options struct {
	bin      string
	dir      string
	minutes  float64
	seed     uint64
	keep     bool
	isolated bool
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "task" {
		os.Exit(taskMain(os.Args[2:]))
	}
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "folder of the built programs")
	flag.StringVar(&o.dir, "dir", "", "working folder; empty: a temporary one")
	flag.Float64Var(&o.minutes, "minutes", minutesForFull, "how long to break things, in minutes")
	flag.Uint64Var(&o.seed, "seed", 0, "seed of the faults and the load; 0: from the clock")
	flag.BoolVar(&o.keep, "keep", false, "keep the working folder")
	flag.BoolVar(&o.isolated, "isolated", false, "set by the program itself inside its network namespace")
	flag.Parse()
	if !o.isolated && canIsolate() {
		os.Exit(reexecIsolated())
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "chaos: FAILED:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano())
	}
	dir, err := workDir(&o)
	if err != nil {
		return err
	}
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return err
	}
	o.bin = bin
	fmt.Printf("chaos: seed %d, %.1f minutes, namespaces %v, folder %s\n", o.seed, o.minutes, o.isolated, dir)
	net, err := newNetwork(o.isolated)
	if err != nil {
		return fmt.Errorf("prepare the network: %w", err)
	}
	defer net.close()
	cluster, err := rig.Start(ctx, rig.Config{Bin: o.bin, Dir: dir, Servers: servers, Agents: agents, Devices: devices,
		Timing: "fast", Host: net.host(), Extra: []string{"--snapshot-threshold", "200"}})
	if err != nil {
		return fmt.Errorf("start the cluster: %w", err)
	}
	defer cluster.Close()
	report, err := breakAndJudge(ctx, o, cluster, net)
	if report != nil {
		line, jsonErr := json.Marshal(report)
		if jsonErr != nil {
			return jsonErr
		}
		fmt.Println(string(line))
	}
	if err == nil && !o.keep {
		_ = os.RemoveAll(dir)
	}
	return err
}

func workDir(o *options) (string, error) {
	if o.dir != "" {
		abs, err := filepath.Abs(o.dir)
		if err != nil {
			return "", err
		}
		return abs, os.MkdirAll(abs, 0o755)
	}
	return os.MkdirTemp("", "llmos-chaos-")
}

// report is what a run saw; it ends the output as one line of JSON.
type report struct {
	Seed          uint64         `json:"seed"`
	AckedOps      int            `json:"acked_ops"`
	UnknownOps    int            `json:"unknown_ops"`
	FailedOps     int            `json:"failed_ops"`
	LeaderChanges int            `json:"leader_changes"`
	Faults        map[string]int `json:"faults"`
	Jobs          int            `json:"jobs"`
	JobsRestarted int            `json:"jobs_restarted"`
	TasksStarted  int            `json:"tasks_started"`
	TasksReplaced int            `json:"tasks_replaced"`
	Acked         map[string]int `json:"acked"`       // by kind of operation
	Preemptions   int            `json:"preemptions"` // attempts stopped for another job or a drain
	Resizes       int            `json:"resizes"`
	Claims        int            `json:"claims"`     // seen; short ones pass between two looks
	Copies        int            `json:"copies"`     // of arrays
	Dependents    int            `json:"dependents"` // conditions that jobs waited for
	Looks         int            `json:"looks"`      // states that were looked at while things broke
	Settled       float64        `json:"settled_s"`
	Violations    []string       `json:"violations"`
}

func breakAndJudge(ctx context.Context, o options, cluster *rig.Cluster, net *network) (*report, error) {
	client, err := cluster.Client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	evidence, err := newEvidence(cluster.SharedDir())
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	load := newLoad(client, self, evidence.dir, o.seed)
	if err := load.prepare(ctx); err != nil {
		return nil, err
	}
	breaker := newBreaker(cluster, net, rand.New(rand.NewPCG(o.seed, 1)))
	watch := watchLeader(ctx, cluster)
	observer := observe(ctx, client)

	runCtx, cancel := context.WithTimeout(ctx, time.Duration(o.minutes*float64(time.Minute)))
	load.start(runCtx, clients)
	breaker.run(runCtx)
	cancel()
	load.wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}

	fmt.Println("chaos: healing and waiting for the cluster to settle")
	breaker.healAll()
	began := time.Now()
	settleCtx, cancelSettle := context.WithTimeout(ctx, settleTimeout)
	defer cancelSettle()
	settled := settle(settleCtx, cluster, client, load.undrain)
	r := &report{Seed: o.seed, Acked: map[string]int{}, LeaderChanges: watch.stop(), Faults: breaker.counts, Settled: time.Since(began).Seconds()}
	load.count(r)
	r.Violations = append([]string{}, observer.stop(r)...)
	judge := newJudge(cluster, client, evidence, load)
	judgeCtx, cancelJudge := context.WithTimeout(ctx, judgeTimeout) // its own: also what did not settle is judged
	defer cancelJudge()
	r.Violations = append(r.Violations, judge.all(judgeCtx, r)...)
	if settled != nil {
		r.Violations = append(r.Violations, "did not settle: "+settled.Error())
	}
	r.Violations = append(r.Violations, tooLittle(r, o.minutes, o.isolated)...)
	if len(r.Violations) > 0 {
		return r, fmt.Errorf("%d violations (seed %d, folder %s kept): %s", len(r.Violations), o.seed, cluster.Dir, r.Violations[0])
	}
	return r, nil
}

// tooLittle fails a run that proved nothing: the full minimums for a full run, and their
// share for a shorter one.
func tooLittle(r *report, minutes float64, isolated bool) []string {
	share := min(1, minutes/minutesForFull)
	least := func(n int) int { return max(1, int(float64(n)*share)) }
	var out []string
	if r.AckedOps < least(500) {
		out = append(out, fmt.Sprintf("only %d acknowledged operations, want %d", r.AckedOps, least(500)))
	}
	if r.LeaderChanges < least(5) {
		out = append(out, fmt.Sprintf("only %d leader changes, want %d", r.LeaderChanges, least(5)))
	}
	for _, kind := range faultKinds(isolated) {
		if r.Faults[kind.name] < least(10) {
			out = append(out, fmt.Sprintf("only %d faults of kind %s, want %d", r.Faults[kind.name], kind.name, least(10)))
		}
	}
	if want := int(9 * share); r.TasksReplaced < want { // none in the shortest runs: a node is not lost at once
		out = append(out, fmt.Sprintf("only %d tasks of lost nodes were replaced, want %d", r.TasksReplaced, want))
	}
	seen := []struct {
		what string
		got  int
		full int
	}{
		{"preemptions", r.Preemptions, 100}, {"claims", r.Claims, 30}, {"copies of arrays", r.Copies, 100}, {"dependents", r.Dependents, 50},
		{"drains", r.Acked["drain"], 20}, {"changes of the policy", r.Acked["policy"], 20}, {"changes of the queues", r.Acked["queues"], 20},
		{"looks", r.Looks, 200},
	}
	for _, s := range seen {
		if s.got < least(s.full) {
			out = append(out, fmt.Sprintf("only %d %s, want %d", s.got, s.what, least(s.full)))
		}
	}
	if r.TasksStarted == 0 {
		out = append(out, "no task wrote that it started: the checks saw nothing")
	}
	return out
}
