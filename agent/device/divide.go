package device

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// Divider is a Prober that can make slices of its devices when an operator asks.
type Divider interface {
	Prober
	// Divide makes MIG slices of the profiles of a GPU, given by its UUID, in place of those
	// it has; no profiles: MIG is turned off. Nothing may use the GPU. What cannot be is
	// refused before anything is changed; after another error the GPU may have fewer slices
	// than were asked for, which the next Probe shows.
	Divide(ctx context.Context, gpu string, profiles []string) error
}

// profileForm is how NVIDIA names a slice: slices of the GPU, its memory, and what it has besides.
var profileForm = regexp.MustCompile(`^[1-9]g\.[0-9]{1,3}gb(\+[a-z.]{1,8})?$`)

// ParseProfiles reads the profiles of slices, such as 1g.10gb,3g.40gb or 7x1g.10gb.
func ParseProfiles(words string) ([]string, error) {
	var out []string
	for part := range strings.SplitSeq(words, ",") {
		part = strings.ToLower(strings.TrimSpace(part))
		count := 1
		if n, rest, times := strings.Cut(part, "x"); times && len(n) == 1 && n[0] >= '1' && n[0] <= '9' {
			count, part = int(n[0]-'0'), rest
		}
		if !profileForm.MatchString(part) {
			return nil, fmt.Errorf("%.40q is not a MIG profile such as 1g.10gb", part)
		}
		for range count {
			out = append(out, part)
		}
	}
	return out, nil
}

// Division is what a prober listed before and after one of its GPUs was divided.
type Division struct{ Before, After []*pb.Device }

// DivideOne asks the prober that has the GPU. found says whether one has.
func DivideOne(ctx context.Context, probers []Prober, gpu string, profiles []string) (done Division, found bool, err error) {
	for _, p := range probers {
		d, ok := p.(Divider)
		if !ok {
			continue
		}
		devices, err := p.Probe(ctx)
		if err != nil {
			continue
		}
		for _, dev := range devices {
			if dev.GetId() == gpu || dev.GetParent() == gpu {
				done.Before = devices
				err = d.Divide(ctx, gpu, profiles)
				after, probed := p.Probe(ctx)
				done.After = after
				return done, true, errors.Join(err, probed)
			}
		}
	}
	return Division{}, false, nil
}

// Replace gives an inventory with what one prober lists now in place of what it listed before.
func (inv Inventory) Replace(d Division) Inventory {
	rest := slices.DeleteFunc(slices.Clone(inv.Devices), func(x *pb.Device) bool {
		return slices.ContainsFunc(d.Before, func(b *pb.Device) bool { return b.GetId() == x.GetId() })
	})
	inv.Devices, _ = merge(d.After, rest)
	return inv
}
