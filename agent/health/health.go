// Package health decides what becomes of devices, of the tasks on them and of the node after
// errors of the hardware, by the table of agent/device, and which devices are blocked because
// processes that belong to no task hold their memory. It is functions and a book of faults:
// no clock, no I/O, no goroutine. It stops nothing and reports nothing; agent does both.
//
// What is held against a device lasts until the host has started again or an operator says
// that it is repaired: an agent that starts anew must not give work to a GPU that needs a reset.
package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"llmos/agent/device"
	pb "llmos/proto/llmos/v1"
)

const (
	faultsMax  = 1024 // of a node; what comes beyond is still acted on and not remembered
	recentMax  = 512
	recentLife = 10 * time.Minute // how long an error is remembered as the cause of a task's end
	// blameBefore is how long before its end an error can have come that ended a task.
	blameBefore = time.Minute
	// blameAfter is how long after it the error can be heard.
	blameAfter = 5 * time.Second
)

// Fault is what is held against a device.
type Fault struct {
	GPU     string    `json:"gpu"` // ID of the device, or of the GPU whose slices are the devices
	XID     uint32    `json:"xid"`
	Action  string    `json:"action"`
	Meaning string    `json:"meaning"`
	At      time.Time `json:"at"`    // first
	Count   int       `json:"count"` // how often it came since
}

// action is the fault's action as it was when it came; one that is not known drains the device.
func (f Fault) action() device.Action {
	for a := device.ActionIgnore; a <= device.ActionDrainNode; a++ {
		if a.String() == f.Action {
			return a
		}
	}
	return device.ActionDrainDevice
}

// text is the fault in a sentence that does not change while it lasts.
func (f Fault) text() string {
	return fmt.Sprintf("XID %d (%s) at %s; %s", f.XID, f.Meaning, f.At.UTC().Format(time.RFC3339), remedies[f.action()])
}

var remedies = map[device.Action]string{
	device.ActionDrainDevice: "no new work until llmos repair or a restart of the host",
	device.ActionNeedsReset:  "it needs a reset, then llmos repair, or a restart of the host",
	device.ActionDrainNode:   "the host needs a restart, or llmos repair",
}

// Order says that the tasks on devices are to be stopped and started again.
type Order struct {
	Devices map[string]bool // by ID
	Reason  string
}

// Book holds what is held against the devices of a node. The zero value is empty. It is not
// safe for concurrent use.
type Book struct {
	Table  device.XIDTable
	faults []Fault
	recent []recentError
}

// recentError is an error that may be the cause of a task's end.
type recentError struct {
	gpu, slice string // slice is empty when the error is of the whole GPU
	x          device.XID
	at         time.Time
}

// Faults gives what is held, oldest first.
func (b *Book) Faults() []Fault { return slices.Clone(b.faults) }

// Remember takes up what an earlier run of the agent held.
func (b *Book) Remember(faults []Fault) {
	b.faults = slices.Clone(faults[:min(len(faults), faultsMax)])
}

// Take brings errors into the book. It gives the tasks to be stopped, and for the log a
// sentence about each error; devices are those that the node has now.
func (b *Book) Take(events []device.Event, devices []*pb.Device) (orders []Order, log []string) {
	for _, e := range events {
		x := b.Table.Of(e.XID)
		for _, gpu := range gpusOf(e.DeviceID, devices) {
			order, said := b.one(e, x, gpu, devices)
			log = append(log, said)
			if x.Action.EndsTasks() {
				orders = append(orders, order)
			}
		}
	}
	return orders, log
}

// one takes one error of one GPU.
func (b *Book) one(e device.Event, x device.XID, gpu string, devices []*pb.Device) (Order, string) {
	slice := ""
	if e.DeviceID != gpu && e.DeviceID != "" {
		slice = e.DeviceID
	}
	hurt := map[string]bool{}
	for _, d := range devices {
		if whole := wholeOf(d); whole == gpu && (slice == "" || slice == d.Id || x.Action.Lasts()) {
			hurt[d.Id] = true
		}
	}
	if x.Action != device.ActionIgnore {
		if x.Action.Lasts() {
			slice = ""
		}
		b.recent = append(b.recent, recentError{gpu: gpu, slice: slice, x: x, at: e.At})
		b.recent = b.recent[max(0, len(b.recent)-recentMax):]
	}
	if x.Action.Lasts() {
		b.hold(gpu, x, e.At)
	}
	name := cmp.Or(e.DeviceID, gpu)
	return Order{Devices: hurt, Reason: fmt.Sprintf("%s on device %s", x, name)}, fmt.Sprintf("%s on device %s: %s", x, name, x.Action)
}

func (b *Book) hold(gpu string, x device.XID, at time.Time) {
	for i, f := range b.faults {
		if f.GPU == gpu && f.XID == x.Code {
			b.faults[i].Count++
			return
		}
	}
	if len(b.faults) < faultsMax {
		b.faults = append(b.faults, Fault{GPU: gpu, XID: x.Code, Action: x.Action.String(), Meaning: x.Meaning, At: at, Count: 1})
	}
}

// gpusOf gives the GPU that an event is of: every one when the driver did not say which.
func gpusOf(id string, devices []*pb.Device) []string {
	var all []string
	for _, d := range devices {
		whole := wholeOf(d)
		if d.Id == id || whole == id {
			return []string{whole}
		}
		if !slices.Contains(all, whole) {
			all = append(all, whole)
		}
	}
	if id != "" {
		return []string{id} // one that is not listed any more, or not yet
	}
	return all
}

// wholeOf is the ID of the GPU that a device is, or is a slice of.
func wholeOf(d *pb.Device) string { return cmp.Or(d.Parent, d.Id) }

// Blame gives the error that ended a task, or made it fail, when there was one: the task held
// these devices and ran from began to ended. Its failure is then not its own.
func (b *Book) Blame(held []string, devices []*pb.Device, began, ended time.Time) (reason string, blamed bool) {
	for i := len(b.recent) - 1; i >= 0; i-- {
		r := b.recent[i]
		if r.at.Before(began) || r.at.Before(ended.Add(-blameBefore)) || r.at.After(ended.Add(blameAfter)) {
			continue
		}
		for _, id := range held {
			whole := id
			if at := slices.IndexFunc(devices, func(d *pb.Device) bool { return d.Id == id }); at >= 0 {
				whole = wholeOf(devices[at])
			}
			if whole == r.gpu && (r.slice == "" || r.slice == id) {
				return fmt.Sprintf("%s on device %s", r.x, id), true
			}
		}
	}
	return "", false
}

// Forget drops errors that can no longer be the cause of anything.
func (b *Book) Forget(now time.Time) {
	b.recent = slices.DeleteFunc(b.recent, func(r recentError) bool { return now.Sub(r.at) > recentLife })
}

// Repair clears what is held against a device, or against all when id is empty. It gives a
// sentence for each fault that is gone.
func (b *Book) Repair(id string, devices []*pb.Device) (cleared []string) {
	whole := id
	for _, d := range devices {
		if d.Id == id {
			whole = wholeOf(d)
		}
	}
	b.faults = slices.DeleteFunc(b.faults, func(f Fault) bool {
		gone := id == "" || f.GPU == id || f.GPU == whole
		if gone {
			cleared = append(cleared, fmt.Sprintf("device %s: XID %d (%s)", f.GPU, f.XID, f.Meaning))
		}
		return gone
	})
	return cleared
}

// Show gives the devices as they are to be shown, and why the node takes no new work, empty
// when it does. blocked holds a reason by ID for devices that take none although they are
// well. What is changed is a copy.
func (b *Book) Show(devices []*pb.Device, blocked map[string]string) (shown []*pb.Device, unfit string) {
	shown = slices.Clone(devices)
	for i, d := range devices {
		if f, held := b.worst(wholeOf(d)); held {
			shown[i] = proto.CloneOf(d)
			shown[i].Health, shown[i].Reason = pb.DeviceHealth_DEVICE_HEALTH_FAILED, f.text()
		} else if why := blocked[d.Id]; why != "" && d.Health == pb.DeviceHealth_DEVICE_HEALTH_OK {
			shown[i] = proto.CloneOf(d)
			shown[i].Health, shown[i].Reason = pb.DeviceHealth_DEVICE_HEALTH_BLOCKED, why
		}
	}
	var whys []string
	for _, f := range b.faults {
		if f.action() == device.ActionDrainNode {
			whys = append(whys, fmt.Sprintf("device %s: %s", f.GPU, f.text()))
		}
	}
	return shown, strings.Join(whys, "; ")
}

// worst gives the gravest fault of a GPU, the oldest of several.
func (b *Book) worst(gpu string) (worst Fault, held bool) {
	for _, f := range b.faults {
		if f.GPU == gpu && (!held || f.action() > worst.action()) {
			worst, held = f, true
		}
	}
	return worst, held
}
