package device

import (
	"context"
	"errors"
)

// UsesMax bounds the processes of one look. What is beyond it is left out: less is then
// known to be used than is.
const UsesMax = 2048

// Use is one look at who uses the devices of a host.
type Use struct {
	Processes []ProcessUse
	Percent   map[string]int32 // by device ID, 0 to 100: how much of the time it was busy lately; absent: unknown
}

// ProcessUse is memory of one device that one process holds. A process and a device come
// together once.
type ProcessUse struct {
	DeviceID    string
	PID         int // as this process sees the host's processes
	MemoryBytes int64
}

// Meter is a Prober that also knows who uses its devices.
type Meter interface {
	Prober
	// Use looks once. After an error nothing is known, which is not the same as nothing
	// being used. It may be called beside Probe.
	Use(ctx context.Context) (Use, error)
}

// Look asks every prober that is a Meter. The error is that of those which did not answer;
// what the others said is not given then.
func Look(ctx context.Context, probers []Prober) (Use, error) {
	all := Use{Percent: map[string]int32{}}
	var errs []error
	for _, p := range probers {
		m, ok := p.(Meter)
		if !ok {
			continue
		}
		u, err := m.Use(ctx)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all.Processes = append(all.Processes, u.Processes...)
		for id, percent := range u.Percent { // unordered: a copy
			all.Percent[id] = percent
		}
	}
	if len(errs) > 0 {
		return Use{}, errors.Join(errs...)
	}
	return all, nil
}
