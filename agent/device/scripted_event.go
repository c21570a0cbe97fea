package device

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	pb "llmos/proto/llmos/v1"
)

// scriptXID is an XID error of a scripted device.
type scriptXID struct {
	Device string `yaml:"device"`
	XID    uint32 `yaml:"xid"`
}

// checkXIDs holds the errors of a script against its devices.
func checkXIDs(xids []scriptXID, devices []*pb.Device) error {
	if len(xids) > EventsMax {
		return invalid("%d XID errors, at most %d", len(xids), EventsMax).At("xids", 0)
	}
	for i, x := range xids {
		known := slices.ContainsFunc(devices, func(d *pb.Device) bool { return d.Id == x.Device || d.Parent == x.Device })
		if !known || x.XID == 0 {
			return invalid("an XID error has the ID of a device and a code; here they are %.60q and %d", x.Device, x.XID).At(fmt.Sprintf("xids[%d]", i), 0)
		}
	}
	return nil
}

// Events gives the errors that have been added to the script since the last call.
func (s *scripted) Events(context.Context) ([]Event, error) {
	if s.path == "" {
		return nil, nil
	}
	sc, err := s.read()
	if err != nil {
		return nil, err
	}
	if sc.Error != "" {
		return nil, errors.New(sc.Error)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Event
	for i := s.heard; i < len(sc.XIDs); i++ {
		out = append(out, Event{DeviceID: sc.XIDs[i].Device, XID: sc.XIDs[i].XID, At: time.Now()})
	}
	s.heard = len(sc.XIDs)
	return out, nil
}

// Divide makes slices of a scripted device until the agent ends.
func (s *scripted) Divide(ctx context.Context, gpu string, profiles []string) error {
	for _, p := range profiles {
		if migForm.FindString(p) == "" {
			return fmt.Errorf("the GPU has no profile %.40q", p)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.divided == nil {
		s.divided = map[string][]string{}
	}
	s.divided[gpu] = slices.Clone(profiles)
	return nil
}

// cut puts the slices that Divide made in the place of their devices.
func (s *scripted) cut(devices []*pb.Device) []*pb.Device {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*pb.Device
	for _, d := range devices {
		profiles := s.divided[d.Id]
		if len(profiles) == 0 {
			out = append(out, d)
			continue
		}
		for i, profile := range profiles {
			slice := proto.CloneOf(d)
			gib, err := strconv.ParseInt(migForm.FindStringSubmatch(profile)[1], 10, 32)
			if err != nil {
				gib = 1
			}
			slice.Id, slice.Parent, slice.MigProfile, slice.MemoryBytes, slice.Island = fmt.Sprintf("%s-s%d", d.Id, i), d.Id, profile, gib<<30, ""
			out = append(out, slice)
		}
	}
	return out
}
