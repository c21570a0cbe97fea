package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"llmos/agent/device"
	"llmos/agent/exec"
	"llmos/agent/health"
	pb "llmos/proto/llmos/v1"
)

const (
	faultsFile   = "faults.json"   // what XID errors are held against the devices
	hearEvery    = time.Second     // between two questions for errors of devices
	hearTimeout  = 5 * time.Second // for one
	blameTimeout = 3 * time.Second // for one when a task has failed
	sayEvery     = 15 * time.Second
)

// storedFaults is faultsFile. Faults of an earlier boot are none: the start of a host resets
// its devices.
type storedFaults struct {
	BootID string         `json:"boot_id"`
	Faults []health.Fault `json:"faults"`
}

// keeper keeps what the node says of its devices: what the probers found, less what errors are
// held against, less what strangers block. agent/health decides. Safe for concurrent use.
type keeper struct {
	cfg     Config
	node    *nodeBox
	probers []device.Prober
	post    func(any) bool // to the supervisor
	save    func(storedFaults) error
	say     func(*pb.NodeSample)
	log     *slog.Logger
	now     func() time.Time

	mu        sync.Mutex
	book      health.Book
	blocks    health.Blocks
	found     device.Inventory
	blocked   map[string]string // by device ID: why it takes no new work
	dividing  map[string]bool   // by ID of the GPU
	strangers map[string]health.Stranger
	use       device.Use
	usedAt    time.Time
	deaf      bool // the last question for errors failed
	wires     device.Wires
}

// tasksHurt is news to the supervisor's loop: errors of devices end tasks.
type tasksHurt struct{ orders []health.Order }

// newKeeper makes the keeper of the node that has just been probed, with the faults that an
// earlier run of the agent in this boot has stored.
func newKeeper(cfg Config, h *home, first device.Inventory, probers []device.Prober) *keeper {
	k := &keeper{cfg: cfg, probers: probers, log: cfg.Log, now: time.Now, found: first, dividing: map[string]bool{}}
	k.book.Table, k.blocks.LeastBytes = cfg.XIDs, cfg.StrangerBytes
	k.save = func(s storedFaults) error { return h.writeJSON(faultsFile, s) }
	var stored storedFaults
	switch found, err := readJSON(filepath.Join(h.dir, faultsFile), &stored); {
	case err != nil:
		cfg.Log.Warn("the faults of devices could not be read; errors before this start are forgotten", "error", err)
	case found && stored.BootID == exec.BootID():
		k.book.Remember(stored.Faults)
		for _, f := range stored.Faults {
			cfg.Log.Warn("a device still waits for its repair", "gpu", f.GPU, "xid", f.XID, "meaning", f.Meaning, "action", f.Action)
		}
	}
	return k
}

// run asks for errors, and says how the node is, until ctx ends.
func (k *keeper) run(ctx context.Context) {
	hear, say := time.NewTicker(hearEvery), time.NewTicker(sayEvery)
	defer hear.Stop()
	defer say.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hear.C:
			k.hear(ctx, hearTimeout)
		case now := <-say.C:
			k.say(k.sample(now))
		}
	}
}

// inventory takes what the probers found now.
func (k *keeper) inventory(inv device.Inventory) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.found = inv
	k.show()
}

// show brings the node up to what is known; the caller holds the lock. A node that is the same
// is not changed.
func (k *keeper) show() {
	was, _ := k.node.get()
	next := proto.CloneOf(was)
	k.write(next)
	if !proto.Equal(was, next) {
		k.node.update(func(n *pb.Node) { k.write(n) })
	}
}

// write writes the devices into a node; the caller holds the lock, or is the only one yet.
func (k *keeper) write(n *pb.Node) {
	k.cfg.inventory(n, k.found)
	blocked := k.blocked
	if len(k.dividing) > 0 {
		blocked = maps.Clone(k.blocked)
		if blocked == nil {
			blocked = map[string]string{}
		}
		for _, d := range k.found.Devices {
			if k.dividing[d.GetId()] || k.dividing[d.GetParent()] {
				blocked[d.GetId()] = "it is being divided"
			}
		}
	}
	n.Devices, n.Unfit = k.book.Show(k.found.Devices, blocked)
}

// hear asks the devices' drivers for errors and does what the table says.
func (k *keeper) hear(ctx context.Context, patience time.Duration) {
	timed, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	events, err := device.Hear(timed, k.probers)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil && !k.deaf && ctx.Err() == nil {
		k.log.Warn("errors of devices are not heard of", "error", err)
	}
	k.deaf = err != nil
	k.book.Forget(k.now())
	if len(events) == 0 {
		return
	}
	held := len(k.book.Faults())
	orders, said := k.book.Take(events, k.found.Devices)
	for _, s := range said {
		k.log.Warn("device error: " + s)
	}
	if len(k.book.Faults()) != held {
		k.store()
	}
	k.show()
	if len(orders) > 0 {
		go k.post(tasksHurt{orders}) // the supervisor may be asking for the blame at this moment
	}
}

// store writes what is held; the caller holds the lock.
func (k *keeper) store() {
	if err := k.save(storedFaults{BootID: exec.BootID(), Faults: k.book.Faults()}); err != nil {
		k.log.Warn("the faults of devices could not be stored; a restart of the agent forgets them", "error", err)
	}
}

// blame says which error ended a task that held these devices; empty: none, it failed by itself.
func (k *keeper) blame(ctx context.Context, held []string, began, ended time.Time) string {
	k.hear(ctx, blameTimeout) // the error may not have been asked for yet
	k.mu.Lock()
	defer k.mu.Unlock()
	why, _ := k.book.Blame(held, k.found.Devices, began, ended)
	return why
}

// looked takes a look at who uses the devices.
func (k *keeper) looked(use device.Use, ofTask func(pid int) bool, now time.Time) {
	strangers := health.Strangers(use, ofTask)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.use, k.usedAt, k.strangers = use, now, strangers
	blocked := k.blocks.Look(strangers)
	for id, why := range blocked {
		if k.blocked[id] == "" {
			k.log.Warn("device takes no new work: "+why, "device", id)
		}
	}
	if !maps.Equal(blocked, k.blocked) {
		k.blocked = blocked
		k.show()
	}
}

// repair clears what is held against a device, or against all. It gives what that was.
func (k *keeper) repair(id string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	cleared := k.book.Repair(id, k.found.Devices)
	if len(cleared) > 0 {
		k.log.Info("devices were repaired", "cleared", cleared)
		k.store()
		k.show()
	}
	return cleared
}

// refuse says why a task cannot have its devices; empty: it can. The servers may have placed
// it before they heard that a device has gone or is being divided.
func (k *keeper) refuse(a *pb.Assignment) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, g := range a.GetAllocation().GetDevices() {
		if d := k.deviceOf(g.GetDeviceId()); d == nil {
			return fmt.Sprintf("node %s no longer has device %s", k.cfg.name(), g.GetDeviceId())
		} else if k.dividing[d.GetId()] || k.dividing[d.GetParent()] {
			return fmt.Sprintf("device %s of node %s is being divided", g.GetDeviceId(), k.cfg.name())
		}
	}
	return ""
}

// deviceOf gives a device that was found; the caller holds the lock.
func (k *keeper) deviceOf(id string) *pb.Device {
	for _, d := range k.found.Devices {
		if d.GetId() == id {
			return d
		}
	}
	return nil
}

// hasDevices says whether there is anything to look at.
func (k *keeper) hasDevices() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.found.Devices) > 0
}
