package scheduler

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
)

// kindsMax bounds the kinds of device that are told apart; those of further kinds, the
// largest ones, take no work.
const kindsMax = 256

// noKind marks a device of a kind beyond kindsMax.
const noKind = int16(-1)

// newRoom copies what is free from the nodes, which must be in order of ID.
func newRoom(nodes []Node, weights Weights, ratio float64, v view) *room {
	total := 0
	for i := range nodes {
		total += len(nodes[i].Devices)
	}
	r := &room{spec: nodes, nodes: make([]nodeRoom, len(nodes)), devices: make([]device, 0, total), view: v,
		weights: weights, ratio: ratio, indexes: map[shape]*index{}, asked: map[shape]bool{}, labels: map[string]*domains{}, tried: map[*Expr]*condition{}, texts: map[string]*condition{}}
	r.seen = make([]seen, len(nodes))
	for i := range nodes {
		r.seen[i] = seen{id: nodes[i].ID, version: nodes[i].Version}
	}
	r.rank = r.score
	r.learnKinds()
	r.devices = r.devices[:total]
	sizes, at := r.sizes(), 0
	var last device // neighbours are mostly alike: look a kind up once
	var lastSpec *Device
	for i := range nodes {
		spec, n := &nodes[i], &r.nodes[i]
		n.first = int32(at)
		for j := range spec.Devices {
			d := &spec.Devices[j]
			if lastSpec == nil || d.Memory != lastSpec.Memory || d.Model != lastSpec.Model || d.Profile != lastSpec.Profile {
				last = device{memory: d.Memory, model: r.model(d.Model), rank: rankOf(sizes, d.Memory), kind: r.kindOf(d)}
				lastSpec = d
			}
			r.devices[at] = last
			at++
		}
		n.last = int32(at)
		r.describe(i)
		r.read(i)
	}
	r.classes = classes{byKey: map[fingerprint]int32{}, of: make([]int32, len(nodes))}
	r.classes.order(nodes)
	for i := range nodes {
		r.classes.of[i] = -1
		r.nodes[i].changed = true
		r.changed = append(r.changed, int32(i))
	}
	return r
}

// describe notes what does not change while the node and its devices are the same.
func (r *room) describe(node int) {
	spec, n := &r.spec[node], &r.nodes[node]
	devices := r.devicesOf(node)
	n.uniform, n.parted = len(devices) > 0, false
	n.static = fingerprint{}
	n.static.add(uint64(spec.CPU), 11)
	n.static.add(uint64(spec.Memory), 12)
	var sum uint64
	for j := range devices {
		d, from := &devices[j], &spec.Devices[j]
		d.numa, d.island = int16(max(-1, from.NUMA)), islandOf(spec.Devices, j)
		n.uniform = n.uniform && d.sameKind(&devices[0])
		n.parted = n.parted || d.numa != devices[0].numa || d.island != devices[0].island
		var place fingerprint
		place.addText(from.Model)
		place.addText(from.Profile)
		place.add(uint64(from.Memory), 13)
		place.add(uint64(int64(d.numa)), 14)
		place.add(uint64(int64(d.island)), 15)
		d.place = place[0]
		sum += place[1]
	}
	n.static.add(sum, 16)
	n.static.add(uint64(len(devices)), 17)
}

// islandOf numbers a device's island by the first device of it; -1 when it is unknown.
func islandOf(devices []Device, at int) int16 {
	if devices[at].Island == "" {
		return -1
	}
	for i := range devices {
		if devices[i].Island == devices[at].Island {
			return int16(i)
		}
	}
	return -1
}

// read copies what is free on a node from the snapshot.
func (r *room) read(node int) {
	spec, n := &r.spec[node], &r.nodes[node]
	n.closed = 0
	n.usable = (spec.Status == NodeReady && !spec.Drained) || r.view == viewRegistered
	n.cpu, n.memory = spec.CPUFree, spec.MemFree
	n.ports = portsFree(spec, r.view)
	if r.view != viewFree {
		n.cpu, n.memory = spec.CPU, spec.Memory
	}
	n.share, n.whole = 0, 0
	devices := r.devicesOf(node)
	for j := range devices {
		devices[j].open(&spec.Devices[j], r.view)
		r.count(n, &devices[j], 1)
	}
}

// sameStatic says whether two values of a node differ in nothing that describe, the labels
// and the order of topology depend on.
func sameStatic(a, b *Node) bool {
	if a.CPU != b.CPU || a.Memory != b.Memory || len(a.Devices) != len(b.Devices) || !sameLabels(a.Labels, b.Labels) || a.Name != b.Name {
		return false
	}
	for i := range a.Devices {
		d, e := &a.Devices[i], &b.Devices[i]
		if d.Memory != e.Memory || d.NUMA != e.NUMA || d.Model != e.Model || d.Profile != e.Profile || d.Island != e.Island {
			return false
		}
	}
	return true
}

// sameLabels compares two sets of labels, which are mostly one and the same.
func sameLabels(a, b map[string]string) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer() || maps.Equal(a, b)
}

// open sets what is free of the device.
func (w *device) open(d *Device, v view) {
	w.available = (d.Available || v == viewRegistered) && w.kind != noKind
	w.shareFree, w.memFree = 0, 0
	switch {
	case w.available && v != viewFree:
		w.shareFree, w.memFree = deviceWhole, d.Memory
	case w.available:
		w.shareFree, w.memFree = d.ShareFree, d.MemFree
	}
}

func portsFree(n *Node, v view) int32 {
	switch {
	case n.PortMin <= 0 || n.PortMax < n.PortMin:
		return 0
	case v != viewFree:
		return n.PortMax - n.PortMin + 1
	}
	return max(0, n.PortMax-n.PortMin+1-int32(len(n.Ports)))
}

// named is a kind as the snapshot has it.
type named struct {
	model, profile string
	memory         int64
}

// learnKinds interns the models and kinds. Neighbouring devices are mostly alike, so that
// comparing with the one before saves nearly every look-up.
func (r *room) learnKinds() {
	seen := map[named]bool{}
	var names []named
	var last named
	for i := range r.spec {
		for j := range r.spec[i].Devices {
			d := &r.spec[i].Devices[j]
			if k := (named{d.Model, d.Profile, d.Memory}); k != last || len(names) == 0 {
				if last = k; !seen[k] {
					seen[k] = true
					names = append(names, k)
				}
			}
		}
	}
	for _, k := range names {
		r.models = append(r.models, k.model)
	}
	slices.Sort(r.models)
	r.models = slices.Compact(r.models)
	for _, k := range names {
		r.kinds = append(r.kinds, kind{model: r.model(k.model), memory: k.memory, profile: k.profile})
	}
	slices.SortFunc(r.kinds, func(a, b kind) int { return byKind(a, b, r.models) })
	r.kinds = r.kinds[:min(len(r.kinds), kindsMax)]
}

func (r *room) kindOf(d *Device) int16 {
	want := kind{model: r.model(d.Model), memory: d.Memory, profile: d.Profile}
	if at, found := slices.BinarySearchFunc(r.kinds, want, func(a, b kind) int { return byKind(a, b, r.models) }); found {
		return int16(at)
	}
	return noKind
}

// sizes gives the distinct device memory sizes, ascending.
func (r *room) sizes() []int64 {
	var sizes []int64
	for _, k := range r.kinds {
		sizes = append(sizes, k.memory)
	}
	return slices.Compact(sizes) // kinds are in order of memory
}

func rankOf(sizes []int64, memory int64) int16 {
	i, _ := slices.BinarySearch(sizes, memory)
	return int16(i)
}

// order lays the nodes out by zone, rack and ID, so that of equal nodes those of one rack
// are taken one after the other and other racks stay whole.
func (c *classes) order(nodes []Node) {
	c.nodeAt, c.position = make([]int32, len(nodes)), make([]int32, len(nodes))
	labelled := false
	for i := range nodes {
		c.nodeAt[i] = int32(i)
		labelled = labelled || len(nodes[i].Labels) > 0
	}
	if labelled {
		slices.SortStableFunc(c.nodeAt, func(a, b int32) int {
			x, y := &nodes[a], &nodes[b]
			return cmp.Or(cmp.Compare(x.Labels["zone"], y.Labels["zone"]), cmp.Compare(x.Labels["rack"], y.Labels["rack"]))
		})
	}
	for position, node := range c.nodeAt {
		c.position[node] = int32(position)
	}
}
