package agent

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc/peer"

	"llmos/agent/device"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// operator admits servers alone: they have asked who the person is.
func operator(ctx context.Context) error {
	if _, local := peer.FromContext(ctx); !local {
		return nil // called in this process: a test
	}
	if id, ok := transport.PeerIdentity(ctx); !ok || id.Role != pb.MemberRole_MEMBER_ROLE_SERVER {
		return fault.New(pb.ErrorKind_ERROR_KIND_DENIED, "an agent is operated by servers alone").Hint("ask a server: llmos mig, llmos repair")
	}
	return nil
}

// DivideGPU makes MIG slices of a GPU that no task holds.
func (s *agentService) DivideGPU(ctx context.Context, req *pb.DivideGPURequest) (*pb.DivideGPUResponse, error) {
	if err := operator(ctx); err != nil {
		return nil, err
	}
	devices, err := s.keeper.divide(ctx, req.GetDeviceId(), req.GetProfiles(), s.reserve)
	if err != nil {
		return nil, err
	}
	return &pb.DivideGPUResponse{Devices: devices}, nil
}

// RepairNode takes the word of an operator that a device, or the node, is repaired.
func (s *agentService) RepairNode(ctx context.Context, req *pb.RepairNodeRequest) (*pb.RepairNodeResponse, error) {
	if err := operator(ctx); err != nil {
		return nil, err
	}
	return &pb.RepairNodeResponse{Cleared: s.keeper.repair(req.GetDeviceId())}, nil
}

// divide has the driver divide a GPU. From the moment that this is known no task is started on
// it; reserve says whether one holds it already.
func (k *keeper) divide(ctx context.Context, gpu string, profiles []string, reserve func(context.Context, map[string]bool) (string, error)) ([]*pb.Device, error) {
	name := k.cfg.name()
	if !k.cfg.AllowMIG {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_DENIED, "the agent of node %s does not divide GPUs", name).Hint("start it with --allow-mig")
	}
	if len(profiles) > 0 {
		if _, err := device.ParseProfiles(strings.Join(profiles, ",")); err != nil {
			return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%w", err).At("profiles", 0)
		}
	}
	parts, err := k.begin(gpu)
	if err != nil {
		return nil, err
	}
	defer k.end(gpu)
	holder, err := reserve(ctx, parts)
	switch {
	case err != nil:
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "the agent of node %s is ending: %w", name, err)
	case holder != "":
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "task %s holds GPU %s of node %s", holder, gpu, name).
			Hint("llmos drain %s, wait for its end, then ask again", name).At("device_id", 0)
	}
	k.log.Info("dividing a GPU", "gpu", gpu, "profiles", profiles)
	done, found, err := device.DivideOne(ctx, k.probers, gpu, profiles)
	if found && done.After != nil {
		k.replace(done)
	}
	switch {
	case !found:
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "no driver of node %s divides GPU %s", name, gpu).At("device_id", 0)
	case err != nil:
		k.log.Warn("a GPU could not be divided as asked", "gpu", gpu, "error", err)
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "divide GPU %s of node %s: %w", gpu, name, err).Hint("llmos devices %s shows what it has now", name)
	}
	var now []*pb.Device
	for _, d := range done.After {
		if d.GetId() == gpu || d.GetParent() == gpu {
			now = append(now, d)
		}
	}
	return now, nil
}

// begin marks a GPU as being divided and gives what is granted of it now.
func (k *keeper) begin(gpu string) (map[string]bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	parts := map[string]bool{}
	for _, d := range k.found.Devices {
		if d.GetId() == gpu || d.GetParent() == gpu {
			parts[d.GetId()] = true
		}
	}
	switch {
	case len(parts) == 0 || slices.ContainsFunc(k.found.Devices, func(d *pb.Device) bool { return d.GetId() == gpu && d.GetParent() != "" }):
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "node %s has no GPU %q", k.cfg.name(), gpu).At("device_id", 0).
			Hint("llmos devices %s lists them", k.cfg.name())
	case k.dividing[gpu]:
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "GPU %s of node %s is being divided already", gpu, k.cfg.name()).Hint("wait a moment")
	}
	k.dividing[gpu] = true
	k.show()
	return parts, nil
}

func (k *keeper) end(gpu string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.dividing, gpu)
	k.show()
}

// replace takes what a prober lists after a division.
func (k *keeper) replace(d device.Division) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.found = k.found.Replace(d)
	k.show()
}
