package device

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	pb "llmos/proto/llmos/v1"
)

const (
	answerTimeout  = 10 * time.Second // the child's first answer loads the driver, which can take seconds
	divideTimeout  = 90 * time.Second // for slices to be destroyed and made
	absentRetry    = 30 * time.Second // between looks for a driver that was not there
	restartMin     = time.Second      // before the first restart of a child that failed
	restartMax     = 60 * time.Second
	childVerb      = "nvml-probe"
	childStderrMax = 4 << 10 // bytes of the child's last words that are kept
	vanished       = "it was there and NVML lists it no longer"
)

// nvidia asks a child process, which alone calls NVML. See the package comment for why.
type nvidia struct {
	command []string // argv of the child
	env     []string
	log     *slog.Logger
	now     func() time.Time
	foreign func() bool // see foreignPIDs

	answerTimeout, absentRetry, restartMin time.Duration

	turn     chan struct{} // holds one token while Probe or Use is at work on what follows
	child    *child
	dying    *child    // killed, and perhaps still stuck in the driver
	next     uint64    // ID of the next question
	notUntil time.Time // no child is started before; zero: at once
	backoff  time.Duration
	absent   bool // the last child found no driver
	found    bool // devices were found once: from then on an absent driver is a failure
	last     error
	gpus     map[string][]*pb.Device // by UUID of a GPU: what was listed of it last
}

// NVIDIA makes a prober of the GPUs that NVML knows. self is the path of the llmos program,
// which is run as `<self> nvml-probe`. A host without the driver has no devices, which is
// not an error; the driver is looked for again every 30 s. A child that crashes, hangs past
// its deadline or answers nonsense is killed and started again after a growing pause, and
// the probe fails meanwhile.
func NVIDIA(self string, log *slog.Logger) Prober {
	return newNVIDIA([]string{self, childVerb}, childEnv(), log)
}

func newNVIDIA(command, env []string, log *slog.Logger) *nvidia {
	return &nvidia{command: command, env: env, log: log, now: time.Now, foreign: foreignPIDs, turn: make(chan struct{}, 1),
		answerTimeout: answerTimeout, absentRetry: absentRetry, restartMin: restartMin}
}

// Name is "nvml".
func (n *nvidia) Name() string { return "nvml" }

// Probe asks the child once.
func (n *nvidia) Probe(ctx context.Context) ([]*pb.Device, error) {
	if err := n.take(ctx); err != nil {
		return nil, err
	}
	defer n.leave()
	if wait := n.notUntil.Sub(n.now()); n.child == nil && wait > 0 {
		if n.absent && !n.found {
			return nil, nil
		}
		return nil, fmt.Errorf("waits %v before it starts the NVML child again: %w", wait.Round(time.Second), n.last)
	}
	a, err := n.ask(ctx, question{}, n.answerTimeout)
	if err == nil && a.Error != "" {
		err = fmt.Errorf("NVML: %s", a.Error)
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		n.stopChild() // its answer would come late and be taken for the next one's
		return nil, err
	}
	if err != nil {
		return nil, n.failed(err)
	}
	if a.Absent {
		// A new process is needed to find a driver that comes later: the loader remembers.
		n.stopChild()
		n.absent, n.notUntil = true, n.now().Add(n.absentRetry)
		n.last = errors.New("the NVIDIA driver is not there any more")
		if n.found {
			return nil, n.last
		}
		return nil, nil
	}
	if n.absent || !n.found {
		n.log.Info("NVML answers", "driver", a.Driver, "devices", len(a.Devices))
	}
	n.absent, n.backoff = false, 0
	n.found = n.found || len(a.Devices) > 0
	return n.withVanished(a.devices()), nil
}

// withVanished adds the GPUs that were listed before and are no longer, failed: one that has
// gone without an operator's doing must not just be missing. Slices of a GPU that is there
// come and go.
func (n *nvidia) withVanished(devices []*pb.Device) []*pb.Device {
	now := map[string][]*pb.Device{}
	for _, d := range devices {
		if !strings.HasPrefix(d.Id, namelessPrefix) {
			id := cmp.Or(d.Parent, d.Id)
			now[id] = append(now[id], proto.CloneOf(d))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(n.gpus)) {
		if now[id] != nil {
			continue
		}
		now[id] = n.gpus[id]
		for _, d := range n.gpus[id] {
			gone := proto.CloneOf(d)
			gone.Health, gone.Reason = pb.DeviceHealth_DEVICE_HEALTH_FAILED, vanished
			devices = append(devices, gone)
		}
	}
	n.gpus = now
	return devices
}

// take waits for its turn with the child, leave ends it.
func (n *nvidia) take(ctx context.Context) error {
	select {
	case n.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the NVML child: %w", context.Cause(ctx))
	}
}

func (n *nvidia) leave() { <-n.turn }

// Use asks the child who uses the devices. It never starts a child: Probe does. A child
// that does not answer is killed, as by Probe; one that says that NVML failed is kept.
func (n *nvidia) Use(ctx context.Context) (Use, error) {
	if err := n.take(ctx); err != nil {
		return Use{}, err
	}
	defer n.leave()
	switch {
	case n.child == nil && n.absent && !n.found:
		return Use{}, nil // no driver, no devices, nobody who uses them
	case n.foreign():
		return Use{}, errors.New("NVML counts the host's processes and this agent sees others: run it in the host's PID namespace")
	case n.child == nil:
		return Use{}, errors.New("the NVML child does not run")
	}
	a, err := n.tell(ctx, question{Use: true}, n.answerTimeout)
	if err != nil {
		return Use{}, err
	}
	return a.use(), nil
}

// Events asks the child what it has heard. It never starts a child.
func (n *nvidia) Events(ctx context.Context) ([]Event, error) {
	if err := n.take(ctx); err != nil {
		return nil, err
	}
	defer n.leave()
	if n.child == nil {
		return nil, nil // Probe tells that it is silent
	}
	a, err := n.tell(ctx, question{Events: true}, n.answerTimeout)
	if err != nil {
		return nil, err
	}
	var out []Event
	for _, e := range a.Events {
		out = append(out, Event{DeviceID: e.UUID, XID: e.XID, At: time.UnixMilli(e.AtMS)})
	}
	return out, nil
}

// Divide has the child make slices of a GPU in place of those it has; see Divider.
func (n *nvidia) Divide(ctx context.Context, gpu string, profiles []string) error {
	if err := n.take(ctx); err != nil {
		return err
	}
	defer n.leave()
	if n.child == nil {
		return errors.New("the NVML child does not run")
	}
	_, err := n.tell(ctx, question{Divide: &childDivide{UUID: gpu, Profiles: profiles}}, divideTimeout)
	return err
}

// tell asks a child that runs. One that does not answer is killed, as by Probe; one that says
// that NVML failed is kept.
func (n *nvidia) tell(ctx context.Context, q question, patience time.Duration) (answer, error) {
	a, err := n.ask(ctx, q, patience)
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		n.stopChild() // its answer would come late and be taken for the next one's
		return answer{}, err
	case err != nil:
		return answer{}, n.failed(err)
	case a.Error != "":
		return answer{}, fmt.Errorf("NVML: %s", a.Error)
	case a.Absent:
		return answer{}, errors.New("the NVIDIA driver is not there")
	}
	return a, nil
}

// hostPIDs is the number of the kernel's first PID namespace (PROC_PID_INIT_INO).
const hostPIDs = "pid:[4026531836]"

// foreignPIDs says whether this process sees other numbers of processes than the host.
func foreignPIDs() bool {
	name, err := os.Readlink("/proc/self/ns/pid")
	return err != nil || name != hostPIDs
}

// ask starts the child when there is none, asks, and checks the answer.
func (n *nvidia) ask(ctx context.Context, q question, patience time.Duration) (answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the NVML child did not answer within %v", patience))
	defer cancel()
	if n.dying != nil {
		// One that cannot be ended has no successor: a wedged driver would fill the machine.
		select {
		case <-n.dying.ended:
			n.dying = nil
		case <-ctx.Done():
			return answer{}, fmt.Errorf("the NVML child %d is stuck in the driver and cannot be ended: %w", n.dying.cmd.Process.Pid, context.Cause(ctx))
		}
	}
	if n.child == nil {
		c, err := startChild(n.command, n.env)
		if err != nil {
			return answer{}, err
		}
		n.child = c
	}
	n.next++
	q.ID = n.next
	a, err := n.child.ask(ctx, q)
	if err != nil {
		return answer{}, err
	}
	if err := a.check(n.next); err != nil {
		return answer{}, fmt.Errorf("the NVML child answered nonsense: %w", err)
	}
	return a, nil
}

// failed ends the child and sets the pause before the next one.
func (n *nvidia) failed(err error) error {
	n.stopChild()
	n.backoff = min(max(2*n.backoff, n.restartMin), restartMax)
	n.notUntil, n.absent, n.last = n.now().Add(n.backoff), false, err
	return err
}

func (n *nvidia) stopChild() {
	if n.child != nil {
		n.child.kill()
		n.dying, n.child = n.child, nil
	}
}
