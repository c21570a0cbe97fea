package device

import (
	"context"
	"errors"
	"maps"
)

// UsesMax bounds the processes of one look. What is beyond it is left out: less is then
// known to be used than is.
const UsesMax = 2048

// Use is one look at who uses the devices of a host.
type Use struct {
	Processes []ProcessUse
	Figures   map[string]Figure // by device ID; absent: nothing is known
}

// unknown is a figure that nobody knows.
const unknown = -1

// Figure is how a device is. What is not known is -1.
type Figure struct {
	Percent        int32 // of the time that it was busy lately
	UsedBytes      int64 // of its memory, whoever holds it
	Celsius        int32
	Milliwatt      int64
	ECCCorrected   int64 // errors of its memory since the driver was loaded
	ECCUncorrected int64
}

// NoFigure knows nothing.
var NoFigure = Figure{Percent: unknown, UsedBytes: unknown, Celsius: unknown, Milliwatt: unknown, ECCCorrected: unknown, ECCUncorrected: unknown}

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
	all := Use{Figures: map[string]Figure{}}
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
		maps.Copy(all.Figures, u.Figures)
	}
	if len(errs) > 0 {
		return Use{}, errors.Join(errs...)
	}
	return all, nil
}
