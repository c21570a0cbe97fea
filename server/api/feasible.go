package api

import (
	"fmt"
	"slices"

	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/scheduler"
)

const wholeDevice = 1000 // thousandths

// feasible refuses a job of which a single task asks for more than any registered node
// could give it, even if that were empty. A gang that is too large only as a whole waits
// instead, and says why: more nodes of the same kind may join at any moment, and at a
// cluster's start usually do. With no node registered nothing is refused.
func feasible(st *state.State, spec *pb.JobSpec) error {
	for i, role := range spec.GetRoles() {
		if someNodeHolds(st, role) {
			continue
		}
		// The judgement and its words are the scheduler's, so that what is refused here
		// and what never gets placed cannot drift apart.
		why := scheduler.Feasible(oneTask(role), capacities(st))
		if why.Cause != scheduler.CauseNeverFits && why.Cause != scheduler.CauseNoModel {
			continue
		}
		return fault.New(pb.ErrorKind_ERROR_KIND_NO_CAPACITY, "%s", perTask(role, why.Text)).
			Hint("%s", why.Remedy).At(fmt.Sprintf("roles[%d].resources", i), 0)
	}
	return nil
}

func perTask(role *pb.RoleSpec, text string) string {
	if role.GetCount() > 1 {
		return "each task " + text
	}
	return text
}

// oneTask is a job of a single task of the role, for the scheduler.
func oneTask(role *pb.RoleSpec) scheduler.Job {
	r := role.GetResources()
	return scheduler.Job{Roles: []scheduler.Role{{Name: role.GetName(), Count: 1, Task: scheduler.Request{
		CPU: r.GetCpuMilli(), Memory: r.GetMemoryBytes(), GPUs: r.GetGpus(), Share: r.GetGpuShareMilli(),
		GPUMemory: r.GetGpuMemoryBytes(), Model: r.GetGpuModel(), Models: r.GetGpuModels(), Profile: r.GetMigProfile(),
		NUMA: r.GetNuma(), Ports: int32(len(role.GetPorts())),
	}}}}
}

// capacities gives the nodes with all that they have, but for devices that are gone.
func capacities(st *state.State) []scheduler.Node {
	var nodes []scheduler.Node
	for n := range st.Nodes() {
		v := scheduler.Node{ID: n.Id, Name: n.Name, Labels: n.Labels, CPU: n.CpuMilli, CPUFree: n.CpuMilli, Memory: n.MemoryBytes,
			MemFree: n.MemoryBytes, PortMin: n.PortMin, PortMax: n.PortMax}
		for _, d := range n.Devices {
			if d.Health != pb.DeviceHealth_DEVICE_HEALTH_GONE {
				v.Devices = append(v.Devices, scheduler.Device{ID: d.Id, Model: d.Model, Memory: d.MemoryBytes,
					MemFree: d.MemoryBytes, ShareFree: wholeDevice, Available: true, NUMA: d.NumaNode, Island: d.Island, Profile: d.MigProfile})
			}
		}
		nodes = append(nodes, v)
	}
	return nodes
}

// someNodeHolds is the short way for nearly every submit: it finds a node that plainly has
// what one task asks for. That it finds none proves nothing.
func someNodeHolds(st *state.State, role *pb.RoleSpec) bool {
	r := role.GetResources()
	for n := range st.Nodes() {
		if r.GetCpuMilli() > n.CpuMilli || r.GetMemoryBytes() > n.MemoryBytes || n.PortMax-n.PortMin < int32(len(role.GetPorts())) {
			continue
		}
		suit := int32(0)
		for _, d := range n.Devices {
			if suits(r, d) {
				suit++
			}
		}
		if suit >= r.GetGpus() && !r.GetNuma() {
			return true
		}
	}
	return false
}

// suits says whether a device is of the kind that a task asks for, and well.
func suits(r *pb.Resources, d *pb.Device) bool {
	ofModel := r.GetGpuModel() == "" || r.GetGpuModel() == d.Model
	if len(r.GetGpuModels()) > 0 {
		ofModel = slices.Contains(r.GpuModels, d.Model)
	}
	return ofModel && r.GetMigProfile() == d.MigProfile && r.GetGpuMemoryBytes() <= d.MemoryBytes && d.Health == pb.DeviceHealth_DEVICE_HEALTH_OK
}
