package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"llmos/test/rig"
)

// faultKind is one way to break the cluster. break gives the way to mend it and how long
// to leave it broken.
type faultKind struct {
	name  string
	wires bool // needs a network that can be cut
	long  bool // lasts long enough, at times, for the tasks of the node to be declared lost
	brk   func(b *breaker) (mend func() error, err error)
}

// faultKinds lists what a run of this kind can break.
func faultKinds(isolated bool) []faultKind {
	var out []faultKind
	for _, k := range allFaults {
		if isolated || !k.wires {
			out = append(out, k)
		}
	}
	return out
}

var allFaults = []faultKind{
	{name: "kill_leader", brk: func(b *breaker) (func() error, error) { return b.kill(b.leader()) }},
	{name: "kill_server", brk: func(b *breaker) (func() error, error) { return b.kill(b.anyServer()) }},
	{name: "pause_server", brk: func(b *breaker) (func() error, error) { return b.pause(b.anyServer()) }},
	{name: "restart_server", brk: func(b *breaker) (func() error, error) { return b.restart(b.anyServer()) }},
	{name: "kill_agent", long: true, brk: func(b *breaker) (func() error, error) { return b.kill(b.anyAgent()) }},
	{name: "pause_agent", long: true, brk: func(b *breaker) (func() error, error) { return b.pause(b.anyAgent()) }},
	{name: "lose_host", long: true, brk: func(b *breaker) (func() error, error) { return b.loseHost(b.anyAgent()) }},
	{name: "isolate_leader", wires: true, brk: func(b *breaker) (func() error, error) { return b.isolate(b.leader()) }},
	{name: "one_way_partition", wires: true, brk: func(b *breaker) (func() error, error) { return b.oneWay() }},
}

const (
	brokenMin = 300 * time.Millisecond
	brokenMax = 1800 * time.Millisecond
	longMax   = 7 * time.Second // more than lostAfterMS
	restMin   = 200 * time.Millisecond
	restMax   = 900 * time.Millisecond
)

// breaker applies faults one after another, each mended before the next.
type breaker struct {
	cluster *rig.Cluster
	net     *network
	rng     *rand.Rand
	counts  map[string]int
	kinds   []faultKind
	bag     []faultKind // the rest of the present round: every kind once a round
}

func newBreaker(c *rig.Cluster, n *network, rng *rand.Rand) *breaker {
	return &breaker{cluster: c, net: n, rng: rng, counts: map[string]int{}, kinds: faultKinds(n.isolated)}
}

// run breaks and mends until ctx ends.
func (b *breaker) run(ctx context.Context) {
	for ctx.Err() == nil {
		kind := b.next()
		mend, err := kind.brk(b)
		if err != nil {
			fmt.Printf("chaos: %s: %v\n", kind.name, err)
			wait(ctx, restMin)
			continue
		}
		b.counts[kind.name]++
		longest := brokenMax
		if kind.long {
			longest = longMax
		}
		wait(ctx, b.between(brokenMin, longest))
		if err := mend(); err != nil {
			fmt.Printf("chaos: mend %s: %v\n", kind.name, err)
		}
		wait(ctx, b.between(restMin, restMax))
	}
}

// next draws kinds without replacement, so that every kind comes equally often.
func (b *breaker) next() faultKind {
	if len(b.bag) == 0 {
		b.bag = append(b.bag, b.kinds...)
		b.rng.Shuffle(len(b.bag), func(i, j int) { b.bag[i], b.bag[j] = b.bag[j], b.bag[i] })
	}
	kind := b.bag[0]
	b.bag = b.bag[1:]
	return kind
}

func (b *breaker) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(b.rng.Int64N(int64(hi-lo)))
}

// wait lets a fault last: the passing of time is the fault itself.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (b *breaker) anyServer() *rig.Process { return b.cluster.Servers[b.rng.IntN(servers)] }
func (b *breaker) anyAgent() *rig.Process  { return b.cluster.Agents[b.rng.IntN(agents)] }

// leader is the present leader, or nil when none is known.
func (b *breaker) leader() *rig.Process {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	p, err := b.cluster.Leader(ctx)
	if err != nil {
		return nil
	}
	return p
}

func (b *breaker) kill(p *rig.Process) (func() error, error) {
	if p == nil {
		return nil, fmt.Errorf("no leader to break")
	}
	p.Kill()
	return p.Start, nil
}

func (b *breaker) restart(p *rig.Process) (func() error, error) {
	p.Stop(5 * time.Second)
	return p.Start, nil
}

func (b *breaker) pause(p *rig.Process) (func() error, error) {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	return func() error { return p.Signal(syscall.SIGCONT) }, nil
}

func (b *breaker) loseHost(p *rig.Process) (func() error, error) {
	p.KillHost()
	return p.Start, nil
}

// isolate cuts a server from every other process, both ways; clients still reach it.
func (b *breaker) isolate(p *rig.Process) (func() error, error) {
	if p == nil {
		return nil, fmt.Errorf("no leader to break")
	}
	var cuts [][2]string
	mine := b.port(p)
	for _, other := range b.ports() {
		if other != mine {
			cuts = append(cuts, [2]string{mine, other}, [2]string{other, mine})
		}
	}
	return b.net.heal, b.net.cut(cuts...)
}

// oneWay drops what one server sends to the others, while it still hears them.
func (b *breaker) oneWay() (func() error, error) {
	from := port("server", b.rng.IntN(servers))
	if leader := b.leader(); leader != nil && b.rng.IntN(2) == 0 {
		from = b.port(leader)
	}
	var cuts [][2]string
	for i := range servers {
		if to := port("server", i); to != from {
			cuts = append(cuts, [2]string{from, to})
		}
	}
	return b.net.heal, b.net.cut(cuts...)
}

func (b *breaker) ports() []string {
	var out []string
	for i := range servers {
		out = append(out, port("server", i))
	}
	for i := range agents {
		out = append(out, port("agent", i))
	}
	return out
}

func (b *breaker) port(p *rig.Process) string {
	for i, s := range b.cluster.Servers {
		if s == p {
			return port("server", i)
		}
	}
	for i, a := range b.cluster.Agents {
		if a == p {
			return port("agent", i)
		}
	}
	return ""
}

// healAll makes every process run and every wire pass.
func (b *breaker) healAll() {
	if b.net.isolated {
		if err := b.net.heal(); err != nil {
			fmt.Println("chaos: heal:", err)
		}
	}
	for _, p := range append(append([]*rig.Process{}, b.cluster.Servers...), b.cluster.Agents...) {
		_ = p.Signal(syscall.SIGCONT)
		if p.Pid() == 0 {
			if err := p.Start(); err != nil {
				fmt.Println("chaos: heal:", err)
			}
		}
	}
}

// leaderWatch counts how often another server led.
type leaderWatch struct {
	cancel  context.CancelFunc
	changes chan int
}

func watchLeader(ctx context.Context, c *rig.Cluster) *leaderWatch {
	ctx, cancel := context.WithCancel(ctx)
	w := &leaderWatch{cancel: cancel, changes: make(chan int, 1)}
	go func() {
		seen, lastTerm := 0, uint64(0)
		for ctx.Err() == nil {
			if term, err := c.Term(ctx); err == nil && term > lastTerm {
				if lastTerm > 0 {
					seen++
				}
				lastTerm = term
			}
			wait(ctx, 100*time.Millisecond)
		}
		w.changes <- seen
	}()
	return w
}

func (w *leaderWatch) stop() int {
	w.cancel()
	return <-w.changes
}
