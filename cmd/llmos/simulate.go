package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"llmos/server/simulate"
	"llmos/server/trace"
)

// simulation is what llmos simulate is asked for.
type simulation struct {
	nodes, trace, out string
	policies          []string
	scale             float64
	most              int
	seed              int64
	checkpoint        time.Duration
	restart           time.Duration
	format            format
}

func (a *app) simulateCommand() *cobra.Command {
	var s simulation
	var names []string
	for _, p := range simulate.Policies() {
		names = append(names, fmt.Sprintf("  %-18s %s", p.Name, p.About))
	}
	cmd := &cobra.Command{
		Use: "simulate --nodes NODES --trace FILE", Short: "Replay a recorded workload on a cluster of your choice", Args: arguments(0, 0, "no arguments"),
		Long: "Replay a recorded workload in virtual time on a cluster that need not exist, and compare scheduling policies.\n" +
			"The decisions are those of the real scheduler. Times are in seconds unless they say otherwise.\n\n" +
			"A trace is a file of llmos history export, or one of the public traces openb, Philly or Pollux; its header\n" +
			"says which. Nodes are a list as openb's (sn,cpu_milli,memory_mib,gpu,model) or a shape: nodes x devices x model.\n\n" +
			"Policies:\n" + strings.Join(names, "\n"),
		Example: "  llmos simulate --nodes 64x8xH100-80GB --trace history.jsonl --policy fifo+easy,fair\n" +
			"  llmos simulate --nodes nodes.csv --trace pods.csv --scale-nodes 1.2 --out plots",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.simulate(&s) },
	}
	flags := cmd.Flags()
	flags.StringVar(&s.nodes, "nodes", "", "`FILE` with a list of nodes, or a shape such as 64x8xH100-80GB")
	flags.StringVar(&s.trace, "trace", "", "`FILE` with the jobs; - reads standard input")
	flags.StringSliceVar(&s.policies, "policy", []string{simulate.PolicyDefault}, "`POLICIES` to compare, separated by commas")
	flags.Float64Var(&s.scale, "scale-nodes", 1, "make the cluster so many times as large")
	flags.StringVar(&s.out, "out", "", "`FOLDER` for the drawings, as SVG and PNG")
	flags.IntVar(&s.most, "jobs", 0, "only the first `N` jobs (0: all)")
	flags.Int64Var(&s.seed, "seed", 0, "order of jobs that are submitted at one time (0: as in the file)")
	flags.DurationVar(&s.checkpoint, "checkpoint", simulate.CheckpointDefault, "work between two checkpoints; a stop loses what lies behind the last (negative: nothing)")
	flags.DurationVar(&s.restart, "restart", simulate.RestartDefault, "what a job that goes on spends before its first useful step (negative: nothing)")
	s.format.flag(cmd)
	return cmd
}

// simulationHeapGrowth is by how many percent the heap may grow between two collections.
const simulationHeapGrowth = 400

func (a *app) simulate(s *simulation) error {
	nodes, jobs, err := a.simulated(s)
	if err != nil {
		return err
	}
	if s.out != "" {
		if err := os.MkdirAll(s.out, 0o755); err != nil {
			return invalid("the folder for drawings cannot be made: %w", err).Hint("name a folder that you may write to").At("--out", 0)
		}
	}
	var results []*simulate.Result
	// Most of what a pass makes lives for that pass alone: fewer collections, a fifth faster.
	defer debug.SetGCPercent(debug.SetGCPercent(simulationHeapGrowth))
	for _, policy := range s.policies {
		bar := a.progressBar("simulating " + policy)
		r, err := simulate.Run(simulate.Options{Nodes: nodes, Jobs: jobs, Policy: policy, Seed: s.seed,
			Checkpoint: s.checkpoint, Restart: s.restart, Progress: bar.at})
		bar.end()
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	if err := a.showSimulation(s, results); err != nil {
		return err
	}
	if s.out == "" {
		return nil
	}
	a.note("drawing ...\n")
	files, err := simulate.Draw(s.out, results)
	if err != nil {
		return err
	}
	a.note("%s in %s\n", count(len(files), "drawing"), s.out)
	return nil
}

// simulated reads and checks what the flags name.
func (a *app) simulated(s *simulation) ([]trace.Node, []trace.Job, error) {
	switch {
	case s.nodes == "":
		return nil, nil, invalid("no cluster is given").Hint("--nodes takes a list of nodes or a shape such as 64x8xH100-80GB").At("--nodes", 0)
	case s.trace == "":
		return nil, nil, invalid("no trace is given").Hint("--trace takes a file such as llmos history export writes").At("--trace", 0)
	case !(s.scale > 0 && s.scale <= 1000) || math.IsNaN(s.scale):
		return nil, nil, invalid("a cluster cannot be %v times as large", s.scale).Hint("a factor above 0 and up to 1000").At("--scale-nodes", 0)
	case len(s.policies) == 0:
		return nil, nil, invalid("no policy is given").Hint("llmos simulate --help lists them").At("--policy", 0)
	case s.most < 0:
		return nil, nil, invalid("%d jobs cannot be simulated", s.most).Hint("0 takes all").At("--jobs", 0)
	}
	for _, p := range s.policies {
		if err := simulate.CheckPolicy(p); err != nil {
			return nil, nil, err
		}
	}
	nodes, err := a.simulatedNodes(s.nodes)
	if err != nil {
		return nil, nil, err
	}
	t, err := a.readTrace(s.trace)
	if err != nil {
		return nil, nil, err
	}
	if s.most > 0 && s.most < len(t.Jobs) {
		t.Jobs = t.Jobs[:s.most]
	}
	return trace.Scale(nodes, s.scale), t.Jobs, nil
}

func (a *app) simulatedNodes(text string) ([]trace.Node, error) {
	if trace.IsShape(text) {
		return trace.ParseShape(text)
	}
	f, err := a.openInput(text, "--nodes", "or give a shape such as 64x8xH100-80GB")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return trace.ReadNodes(text, f)
}

func (a *app) readTrace(name string) (*trace.Trace, error) {
	if name == "-" {
		return trace.Read("standard input", a.in)
	}
	f, err := a.openInput(name, "--trace", "llmos history export writes one")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return trace.Read(name, f)
}

func (a *app) openInput(name, flag, hint string) (io.ReadCloser, error) {
	path, err := a.absolute(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, invalid("there is no file %s", name).Hint("%s", hint).At(flag, 0)
	}
	if err != nil {
		return nil, invalid("read %s: %w", name, err).At(flag, 0)
	}
	return f, nil
}

// showSimulation prints one column a policy, or one JSON object a policy.
func (a *app) showSimulation(s *simulation, results []*simulate.Result) error {
	if s.format.json {
		out := json.NewEncoder(a.out)
		for _, r := range results {
			if err := out.Encode(r.Summary()); err != nil {
				return fmt.Errorf("print the result: %w", err)
			}
		}
		return nil
	}
	first := results[0]
	a.printf("%s on %s\n", count(first.Jobs, "job"), count(first.Devices, "device"))
	if first.Impossible > 0 {
		a.printf("%s could not run on this cluster even if it were empty, and %s left out\n", count(first.Impossible, "job"), isAre(first.Impossible))
	}
	t := &table{header: []string{""}}
	for _, r := range results {
		t.header = append(t.header, r.Policy)
		if r.Refused > 0 {
			a.printf("%s: %s refused at submit\n", r.Policy, count(r.Refused, "job"))
		}
	}
	for i, f := range first.Figures() {
		row := []cell{plain(f.Name)}
		for _, r := range results {
			row = append(row, plain(r.Figures()[i].Text))
		}
		t.add(row...)
	}
	a.show(t)
	return nil
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// progressBar shows how far a long piece of work is, on a terminal alone.
type progressBar struct {
	a     *app
	what  string
	began time.Time
	shown time.Time
}

func (a *app) progressBar(what string) *progressBar {
	return &progressBar{a: a, what: what, began: a.now()}
}

const progressWidth = 30 // characters

func (b *progressBar) at(done, all int) {
	if !b.a.errTTY || all == 0 {
		return
	}
	now := b.a.now()
	if now.Sub(b.shown) < spinnerEvery {
		return
	}
	b.shown = now
	full := progressWidth * done / all
	left := ""
	if spent := now.Sub(b.began); done > 0 && spent > time.Second {
		left = ", " + age(time.Duration(float64(spent)/float64(done)*float64(all-done))) + " left"
	}
	b.a.note("\r\x1b[K%s %s%s %d/%d%s", b.what, strings.Repeat("█", full), strings.Repeat("░", progressWidth-full), done, all, left)
}

func (b *progressBar) end() {
	if b.a.errTTY {
		b.a.note("\r\x1b[K")
	}
}
