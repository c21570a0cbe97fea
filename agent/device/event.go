package device

import (
	"context"
	"errors"
	"time"
)

// EventsMax bounds the events of one answer. When more come at once the oldest are given,
// and the others are lost: the first errors are those that tell.
const EventsMax = 256

// Event is an error that a driver reported of a device.
type Event struct {
	DeviceID string // of a device, or of the GPU that listed slices are parts of; empty: the driver did not say
	XID      uint32
	At       time.Time // when it was heard
}

// Herald is a Prober that also hears of errors of its devices.
type Herald interface {
	Prober
	// Events gives what has come since the last call, oldest first, and does not wait. An
	// error says that nothing is known. It may be called beside Probe.
	Events(ctx context.Context) ([]Event, error)
}

// Hear asks every prober that is a Herald. What some said is given beside the error of others.
func Hear(ctx context.Context, probers []Prober) ([]Event, error) {
	var all []Event
	var errs []error
	for _, p := range probers {
		h, ok := p.(Herald)
		if !ok {
			continue
		}
		events, err := h.Events(ctx)
		if err != nil {
			errs = append(errs, err)
		}
		all = append(all, events...)
	}
	return all, errors.Join(errs...)
}
