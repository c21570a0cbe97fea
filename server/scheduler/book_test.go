package scheduler_test

import (
	"fmt"
	"slices"

	"llmos/server/scheduler"
)

// book checks placements the slow and obvious way, with nothing of the scheduler's own.
type book struct {
	nodes map[string]*page
	jobs  map[string]scheduler.Job
}

type page struct {
	node    scheduler.Node
	devices map[string]*scheduler.Device
	ports   map[int32]bool
}

func newBook(s scheduler.Snapshot) *book {
	b := &book{nodes: map[string]*page{}, jobs: map[string]scheduler.Job{}}
	for _, n := range s.Nodes {
		p := &page{node: n, devices: map[string]*scheduler.Device{}, ports: map[int32]bool{}}
		for _, d := range n.Devices {
			p.devices[d.ID] = &d
		}
		for _, port := range n.Ports {
			p.ports[port] = true
		}
		b.nodes[n.ID] = p
	}
	for _, j := range s.Pending {
		b.jobs[j.ID] = j
	}
	return b
}

// take enters a placement and says what is wrong with it.
func (b *book) take(p scheduler.Placement) error {
	job, ok := b.jobs[p.JobID]
	if !ok {
		return fmt.Errorf("no such job")
	}
	requests := requestsByRank(job, p.Counts)
	if len(requests) != len(p.Tasks) {
		return fmt.Errorf("%d of %d tasks are placed", len(p.Tasks), len(requests))
	}
	for rank, task := range p.Tasks {
		want := requests[rank]
		if rank == 0 && job.Rendezvous && len(requests) > 1 { // a task alone meets nobody
			want.Ports++
		}
		n := b.nodes[task.NodeID]
		if n == nil || n.node.Status != scheduler.NodeReady || n.node.Drained {
			return fmt.Errorf("rank %d is on node %q, which is not ready", rank, task.NodeID)
		}
		if err := n.take(want, task); err != nil {
			return fmt.Errorf("rank %d on %s: %w", rank, task.NodeID, err)
		}
	}
	return nil
}

func (n *page) take(want scheduler.Request, task scheduler.TaskPlacement) error {
	n.node.CPUFree -= want.CPU
	n.node.MemFree -= want.Memory
	if n.node.CPUFree < 0 || n.node.MemFree < 0 {
		return fmt.Errorf("CPU or memory is oversubscribed")
	}
	if len(task.Ports) != int(want.Ports) {
		return fmt.Errorf("has %d ports, wants %d", len(task.Ports), want.Ports)
	}
	for _, port := range task.Ports {
		if n.ports[port] || port < n.node.PortMin || port > n.node.PortMax {
			return fmt.Errorf("port %d is taken or out of range", port)
		}
		n.ports[port] = true
	}
	if len(task.Devices) != int(want.GPUs) {
		return fmt.Errorf("has %d devices, wants %d", len(task.Devices), want.GPUs)
	}
	var mine []string
	model, numa := "", int32(-2)
	for _, g := range task.Devices {
		d := n.devices[g.DeviceID]
		if d == nil || !d.Available || slices.Contains(mine, g.DeviceID) {
			return fmt.Errorf("device %q is unknown, unhealthy or given twice", g.DeviceID)
		}
		mine = append(mine, g.DeviceID)
		if !suits(want, d) {
			return fmt.Errorf("device %s does not suit", d.ID)
		}
		if want.NUMA && numa != -2 && numa != d.NUMA {
			return fmt.Errorf("devices of two NUMA nodes")
		}
		numa = d.NUMA
		if want.Share == 0 && model != "" && model != d.Model {
			return fmt.Errorf("devices of two models")
		}
		model = d.Model
		if err := grantIsRight(want, g, d); err != nil {
			return err
		}
		d.ShareFree -= g.Share
		d.MemFree -= g.Memory
		if d.ShareFree < 0 || d.MemFree < 0 {
			return fmt.Errorf("device %s is oversubscribed", d.ID)
		}
	}
	return nil
}

// suits says whether a device is one that the request accepts.
func suits(r scheduler.Request, d *scheduler.Device) bool {
	ofModel := r.Model == "" || d.Model == r.Model
	if r.Models != nil {
		ofModel = slices.Contains(r.Models, d.Model)
	}
	return ofModel && d.Profile == r.Profile && d.Memory >= r.GPUMemory
}

func grantIsRight(want scheduler.Request, g scheduler.Grant, d *scheduler.Device) error {
	share, memory := int32(1000), d.Memory
	if want.Share > 0 {
		share, memory = want.Share, want.GPUMemory
		if memory == 0 {
			memory = d.Memory * int64(share) / 1000
		}
	}
	if g.Share != share || g.Memory != memory {
		return fmt.Errorf("device %s: granted %d/%d, want %d/%d", d.ID, g.Share, g.Memory, share, memory)
	}
	return nil
}

// admits says whether one task fits.
func (n *page) admits(r scheduler.Request) bool {
	free := n.node.PortMax - n.node.PortMin + 1 - int32(len(n.ports))
	if n.node.Status != scheduler.NodeReady || n.node.CPUFree < r.CPU || n.node.MemFree < r.Memory || free < r.Ports {
		return false
	}
	if r.GPUs == 0 {
		return true
	}
	suiting := map[string]int32{}
	for _, d := range n.devices {
		if !d.Available || !suits(r, d) {
			continue
		}
		numa := ""
		if r.NUMA {
			numa = fmt.Sprint(d.NUMA)
		}
		if r.Share == 0 && d.ShareFree == 1000 && d.MemFree == d.Memory {
			suiting[fmt.Sprint(d.Model, d.Memory, numa)]++
		}
		memory := r.GPUMemory
		if memory == 0 {
			memory = d.Memory * int64(r.Share) / 1000
		}
		if r.Share > 0 && d.ShareFree >= r.Share && d.MemFree >= memory {
			suiting["shared"+numa]++
		}
	}
	for _, count := range suiting {
		if count >= r.GPUs {
			return true
		}
	}
	return false
}
