package device

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	pb "llmos/proto/llmos/v1"
)

const (
	// probeTimeout bounds one call of a prober.
	probeTimeout = 15 * time.Second
	// failuresUntilStale is how many probes in a row must fail before devices are STALE: one
	// failure is often a driver that is busy.
	failuresUntilStale = 2
	// watchEveryMin keeps a careless period from turning the agent into a busy loop.
	watchEveryMin = 10 * time.Millisecond
)

// watched is one prober with what it last found.
type watched struct {
	prober   Prober
	devices  []*pb.Device
	failures int
	reason   string // of the newest failure; empty after a success
}

// watcher holds the state of one Watch; its goroutine is the only user.
type watcher struct {
	nodeID  string
	probers []*watched
	log     *slog.Logger
	host    Host
	extra   int // devices left out of the last inventory
}

// Watch probes once and returns what it found, then probes again after every period and
// sends each inventory that differs from the one before. A slow reader finds only the
// newest one. A prober that fails at first has no devices yet, which is logged and not an
// error: it is asked again. The channel is closed when ctx ends. The error is that of a host
// whose CPU or memory cannot be read.
func Watch(ctx context.Context, nodeID string, probers []Prober, every time.Duration, log *slog.Logger) (first Inventory, changes <-chan Inventory, err error) {
	if every < watchEveryMin {
		return Inventory{}, nil, fmt.Errorf("watch devices: period %v, want at least %v", every, watchEveryMin)
	}
	host, err := ProbeHost()
	if err != nil {
		return Inventory{}, nil, fmt.Errorf("watch devices of node %s: %w", nodeID, err)
	}
	w := &watcher{nodeID: nodeID, host: host, log: log}
	for _, p := range probers {
		w.probers = append(w.probers, &watched{prober: p})
	}
	first = w.probe(ctx)
	out := make(chan Inventory, 1)
	go w.run(ctx, first, every, out)
	return first, out, nil
}

func (w *watcher) run(ctx context.Context, last Inventory, every time.Duration, out chan Inventory) {
	defer close(out)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// The host is read again because a cgroup's limits can change under a running agent.
		if host, err := ProbeHost(); err == nil {
			w.host = host
		}
		next := w.probe(ctx)
		if ctx.Err() != nil {
			return
		}
		if next.equal(last) {
			continue
		}
		last = next
		select {
		case <-out: // the reader has not seen the one before; it is out of date
		default:
		}
		out <- next
	}
}

// probe asks every prober once, side by side, so that one that hangs delays the others by
// no more than its own deadline.
func (w *watcher) probe(ctx context.Context) Inventory {
	type answer struct {
		devices []*pb.Device
		err     error
	}
	answers := make([]chan answer, len(w.probers))
	for i, p := range w.probers {
		answers[i] = make(chan answer, 1)
		go func() {
			ctx, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			devices, err := p.prober.Probe(ctx)
			answers[i] <- answer{devices, err}
		}()
	}
	lists := make([][]*pb.Device, len(w.probers))
	for i, p := range w.probers {
		a := <-answers[i]
		if ctx.Err() == nil {
			p.take(a.devices, a.err, w.log)
		}
		lists[i] = p.view()
	}
	devices, extra := merge(lists...)
	if len(extra) != w.extra {
		w.extra = len(extra)
		if len(extra) > 0 {
			w.log.Warn("devices left out: their ID is listed twice or there are too many", "node", w.nodeID, "devices", extra, "limit", DevicesMax)
		}
	}
	return Inventory{Host: w.host, Devices: devices}
}

// take records one answer of the prober and logs each turn from good to bad and back.
func (p *watched) take(devices []*pb.Device, err error, log *slog.Logger) {
	if err == nil {
		if p.failures > 0 {
			log.Info("device prober answers again", "prober", p.prober.Name(), "devices", len(devices), "failures", p.failures)
		}
		p.devices, p.failures, p.reason = devices, 0, ""
		return
	}
	p.failures++
	if p.failures == 1 {
		log.Warn("device prober failed", "prober", p.prober.Name(), "err", err)
	}
	if p.failures <= failuresUntilStale {
		// The reason is frozen once the devices are stale: a text that changes with each
		// attempt would be a change of inventory each time.
		p.reason = fmt.Sprintf("prober %s is silent: %v", p.prober.Name(), err)
	}
}

// view is the prober's part of the inventory as it should be shown now.
func (p *watched) view() []*pb.Device {
	if p.failures < failuresUntilStale {
		return p.devices
	}
	return stale(p.devices, p.reason)
}
