//go:build cgo && linux

package device

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

const (
	eventWaitMS  = 1000 // of one wait for an event
	eventRetry   = time.Second
	eventNoSlice = math.MaxUint32 // in an event: it is of the whole GPU
)

// listener hears the XID errors of all GPUs in a goroutine of its own, because NVML has them
// waited for. Safe for concurrent use.
type listener struct {
	lib nvml.Interface
	now func() time.Time

	mu     sync.Mutex
	events []childEvent
	fault  string        // why nothing is heard; empty: it is
	again  bool          // the GPUs are others than those it listens to
	begun  bool          // the goroutine runs
	stop   chan struct{} // closed to end it
	ended  chan struct{}
}

func newListener(lib nvml.Interface) *listener {
	return &listener{lib: lib, now: time.Now, stop: make(chan struct{}), ended: make(chan struct{})}
}

// begin starts to listen; renew has it listen to the GPUs that are there now.
func (l *listener) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.begun {
		l.begun = true
		go l.run()
	}
}

func (l *listener) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.again = true
}

// close ends the goroutine before NVML is shut down.
func (l *listener) close() {
	l.mu.Lock()
	begun := l.begun
	l.mu.Unlock()
	if begun {
		close(l.stop)
		<-l.ended
	}
}

// take gives what has come since the last call.
func (l *listener) take() []childEvent {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.events
	l.events = nil
	return out
}

// failing gives why nothing is heard; empty: it is.
func (l *listener) failing() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fault
}

func (l *listener) run() {
	defer close(l.ended)
	for {
		fault := l.listen()
		l.mu.Lock()
		l.fault, l.again = fault, false
		l.mu.Unlock()
		pause := eventRetry
		if fault == "" {
			pause = 0
		}
		select {
		case <-l.stop:
			return
		case <-time.After(pause):
		}
	}
}

// listen hears with one set of events until it fails, another set is needed or the end. It
// gives why it failed. GPUs that have no such events are not listened to.
func (l *listener) listen() (fault string) {
	set, ret := guarded2(l.lib.EventSetCreate)
	if ret != nvml.SUCCESS {
		return l.wait(fmt.Sprintf("make a set of events: %s", nvml.ErrorString(ret)), ret)
	}
	defer guarded(set.Free)
	count, ret := guarded2(l.lib.DeviceGetCount)
	if ret != nvml.SUCCESS {
		return fmt.Sprintf("count the devices: %s", nvml.ErrorString(ret))
	}
	registered := 0
	for i := range min(count, DevicesMax) {
		gpu, ret := guarded2(func() (nvml.Device, nvml.Return) { return l.lib.DeviceGetHandleByIndex(i) })
		if ret != nvml.SUCCESS {
			continue // Probe tells of it
		}
		if guarded(func() nvml.Return { return gpu.RegisterEvents(nvml.EventTypeXidCriticalError, set) }) == nvml.SUCCESS {
			registered++
		}
	}
	for !l.due() {
		if registered == 0 {
			return l.wait("", nvml.ERROR_NOT_SUPPORTED)
		}
		e, ret := guarded2(func() (nvml.EventData, nvml.Return) { return set.Wait(eventWaitMS) })
		switch ret {
		case nvml.SUCCESS:
			l.hear(e)
		case nvml.ERROR_TIMEOUT:
		default:
			return fmt.Sprintf("wait for an event: %s", nvml.ErrorString(ret))
		}
		l.heard()
	}
	return ""
}

// wait lets a driver that has no events be: that is no fault of it.
func (l *listener) wait(fault string, ret nvml.Return) string {
	if ret != nvml.ERROR_NOT_SUPPORTED && ret != nvml.ERROR_FUNCTION_NOT_FOUND {
		return fault
	}
	l.heard()
	select {
	case <-l.stop:
	case <-time.After(eventRetry):
	}
	return ""
}

// due says whether this set is no longer the right one, or the listener is to end.
func (l *listener) due() bool {
	select {
	case <-l.stop:
		return true
	default:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.again
}

func (l *listener) heard() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = ""
}

func (l *listener) hear(e nvml.EventData) {
	if e.EventType != nvml.EventTypeXidCriticalError || e.EventData > math.MaxUint32 {
		return
	}
	uuid := ""
	if e.Device != nil {
		uuid, _ = guarded2(e.Device.GetUUID)
		if e.GpuInstanceId != eventNoSlice {
			if slice := sliceOf(e.Device, e.GpuInstanceId); slice != "" {
				uuid = slice
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) < EventsMax {
		l.events = append(l.events, childEvent{UUID: uuid, XID: uint32(e.EventData), AtMS: l.now().UnixMilli()})
	}
}

// sliceOf finds the one slice of a GPU instance; empty: there is none, or more than one.
func sliceOf(gpu nvml.Device, instance uint32) string {
	if !inMIGMode(gpu) {
		return ""
	}
	handles, err := migHandles(gpu)
	if err != nil {
		return ""
	}
	found := ""
	for _, h := range handles {
		if id, ret := guarded2(h.GetGpuInstanceId); ret != nvml.SUCCESS || id != int(instance) {
			continue
		}
		uuid, ret := guarded2(h.GetUUID)
		if ret != nvml.SUCCESS || found != "" {
			return ""
		}
		found = uuid
	}
	return found
}
