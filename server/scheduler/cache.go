package scheduler

import (
	"math"
	"sync"
)

// Cache schedules as Schedule does, and keeps between passes what does not change: what is
// free on nodes whose Version is the same, the classes of nodes and how shapes rank them.
// The zero value is empty and ready. One pass at a time; plans stay valid.
type Cache struct {
	room  *room
	usage usage
}

// Schedule gives the plan that the function Schedule gives.
func (c *Cache) Schedule(s Snapshot, policy Policy) *Plan {
	policy = policy.withDefaults()
	jobs := inOrder(s.Pending, policy, s.NowMS)
	ratio := 0.0
	if s.Packing == nil { // prices know better
		ratio = roundRatio(cpuPerDevice(jobs))
	}
	r := c.load(s.Nodes, policy.Weights, ratio)
	if r.pricing.prices != s.Packing {
		r.priceBy(s.Packing)
		clear(r.indexes)
	}
	return newRound(&s, newPass(s, policy, jobs, r, &c.usage)).run()
}

// load gives the room of the nodes.
func (c *Cache) load(nodes []Node, weights Weights, ratio float64) *room {
	r := c.room
	if r == nil || !r.reload(nodes) {
		nodes = byID(nodes)
		if r == nil || !r.reload(nodes) {
			r = newRoom(nodes, weights, ratio, viewFree)
			c.room = r
		}
	}
	r.trail, r.granted = r.trail[:0], r.granted[:0]
	if r.weights != weights || r.ratio != ratio {
		r.weights, r.ratio = weights, ratio
		clear(r.indexes)
	}
	return r
}

// reload brings the room up to other values of the same nodes in the same order. It says no
// when others came or went, or one became another machine, and the room has to be made anew;
// what it touched until then is read again in any case.
func (r *room) reload(nodes []Node) bool {
	if len(nodes) != len(r.spec) {
		return false
	}
	same := len(nodes) == 0 || &nodes[0] == &r.spec[0]
	for i := range nodes {
		if same {
			break
		}
		seen, now := &r.seen[i], &nodes[i]
		if seen.id != now.ID {
			return false
		}
		if seen.version != 0 && seen.version == now.Version {
			continue
		}
		if !sameStatic(&r.spec[i], now) {
			return false
		}
		seen.version = 0 // not read yet
		r.touch(i)
	}
	if !same {
		for _, node := range r.touched {
			r.seen[node].version = nodes[node].Version
		}
	}
	r.spec = nodes
	for _, node := range r.touched {
		r.nodes[node].touched = false
		r.read(int(node))
		if n := &r.nodes[node]; !n.changed {
			n.changed = true
			r.changed = append(r.changed, node)
		}
	}
	r.touched = r.touched[:0]
	return true
}

// ratioSteps is the number of steps into which a doubling of the ratio is divided, so that
// it, and with it every score, does not change with each job that comes or goes.
const ratioSteps = 4

func roundRatio(ratio float64) float64 {
	if ratio <= 0 {
		return 0
	}
	return math.Exp2(math.Round(math.Log2(ratio)*ratioSteps) / ratioSteps)
}

// leftRoom is a room made when it is first asked for.
type leftRoom struct {
	once sync.Once
	busy sync.Mutex // who explains holds it
	room *room
	also [viewRegistered + 1]*room // by view: the same nodes as they could be; nil: not made yet
}

// view gives the plan's nodes as they could be. The caller holds busy.
func (p *Plan) view(v view) *room {
	if p.left.also[v] == nil {
		p.left.also[v] = newRoom(p.nodes, Weights{}, 0, v)
	}
	return p.left.also[v]
}

// after gives what is free after the plan's placements, what is held aside not taken.
func (p *Plan) after() *room {
	p.left.once.Do(func() {
		r := newRoom(p.nodes, p.policy.Weights, p.ratio, viewFree)
		byJob := make(map[string]*Job, len(p.placed))
		for i := range p.jobs {
			if p.placed[i] {
				byJob[p.jobs[i].ID] = &p.jobs[i]
			}
		}
		for i := range p.Placements {
			r.book(byJob[p.Placements[i].JobID], &p.Placements[i])
		}
		r.settle()
		p.left.room = r
	})
	return p.left.room
}

// book takes what a placement gives its tasks.
func (r *room) book(job *Job, placement *Placement) {
	for _, g := range r.groupsOf(job, placement.Counts) {
		for rank := g.firstRank; rank < g.firstRank+g.count; rank++ {
			task := &placement.Tasks[rank]
			node := r.nodeByID(task.NodeID)
			if node < 0 {
				continue
			}
			n := &r.nodes[node]
			n.cpu -= g.shape.cpu
			n.memory -= g.shape.memory
			n.ports -= int32(len(task.Ports))
			for _, grant := range task.Devices {
				for at := n.first; at < n.last; at++ {
					if r.spec[node].Devices[at-n.first].ID == grant.DeviceID {
						r.change(n, at, -grant.Share, -grant.Memory)
					}
				}
			}
			r.touch(node)
		}
	}
}
