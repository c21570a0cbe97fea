package fsm

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// The bounds of reservations.
const (
	reservationsMax     = 1000
	reservedNodesMax    = 10_000 // of a reservation
	reservationLateMS   = 60_000 // a start so little ago is taken as now: the request took its time
	reservationSpanMax  = int64(366) * 24 * 60 * 60 * 1000
	reservationAheadMax = 5 * reservationSpanMax // from now to the start
)

// createReservation sets room aside for a span of time.
func (a *applier) createReservation(c *pb.CreateReservation) *pb.Fault {
	r := c.GetReservation()
	if f := a.checkReservation(r); f != nil {
		return f
	}
	if f := a.checkReserved(r); f != nil {
		return f
	}
	if n := a.txn.ReservationCount(); n >= reservationsMax {
		return limit("remove some that are not needed", "there are %d reservations already", n)
	}
	next := proto.CloneOf(r)
	next.CreatedMs, next.StartMs, next.Reason = a.txn.TimeMS(), max(r.StartMs, a.txn.TimeMS()), cut(r.Reason)
	a.txn.PutReservation(next)
	why := ""
	if next.Reason != "" {
		why = ": " + next.Reason
	}
	a.event("reservation.created", "", "", "", "%s %s%s sets %s aside from %s to %s%s", reservationWords[next.Kind], next.Name, by(next.User),
		sizePhrase(next), clock(next.StartMs), clock(next.EndMs), why)
	return nil
}

var reservationWords = map[pb.ReservationKind]string{
	pb.ReservationKind_RESERVATION_KIND_USE:         "reservation",
	pb.ReservationKind_RESERVATION_KIND_MAINTENANCE: "maintenance window",
}

func sizePhrase(r *pb.Reservation) string {
	switch {
	case len(r.NodeIds) == 1:
		return "node " + r.NodeIds[0]
	case len(r.NodeIds) > 0:
		return "nodes " + shortList(r.NodeIds)
	case r.Nodes == 1:
		return "1 node"
	case r.Nodes > 0:
		return fmt.Sprintf("%d nodes", r.Nodes)
	case r.Gpus == 1:
		return "1 device"
	}
	return fmt.Sprintf("%d devices", r.Gpus)
}

// clock shows a time of the state for people.
func clock(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05 UTC") }

// checkReservation checks what can be seen of a reservation alone, and against the state's time.
func (a *applier) checkReservation(r *pb.Reservation) *pb.Fault {
	now := a.txn.TimeMS()
	switch {
	case r == nil || !validName(r.Name):
		return hinted(invalid("name", "%q cannot be a reservation's name", cut(r.GetName())), "at most %d characters without spaces, dots and slashes", nameBytesMax)
	case reservationWords[r.Kind] == "":
		return hinted(invalid("kind", "%d is no kind of reservation", r.Kind), "use or maintenance")
	case r.StartMs != 0 && r.StartMs < now-reservationLateMS:
		return hinted(invalid("start_ms", "reservation %s would start at %s, which is past", r.Name, clock(r.StartMs)), "it is %s; leave the start out for now", clock(now))
	case r.StartMs > now+reservationAheadMax:
		return hinted(invalid("start_ms", "reservation %s would start in more than five years", r.Name), "reserve nearer to the time")
	case r.EndMs <= max(r.StartMs, now):
		return hinted(invalid("end_ms", "reservation %s would end at %s, before it starts or now", r.Name, clock(r.EndMs)), "give an end after %s", clock(max(r.StartMs, now)))
	case r.EndMs-max(r.StartMs, now) > reservationSpanMax:
		return hinted(invalid("end_ms", "reservation %s would last longer than a year", r.Name), "reserve a year at a time")
	case r.Nodes < 0 || r.Gpus < 0 || len(r.NodeIds) > reservedNodesMax:
		return invalid("nodes", "%d nodes, %d devices and %d named nodes cannot be reserved", r.Nodes, r.Gpus, len(r.NodeIds))
	}
	sizes := 0
	for _, given := range []bool{len(r.NodeIds) > 0, r.Nodes > 0, r.Gpus > 0} {
		if given {
			sizes++
		}
	}
	switch {
	case sizes == 0:
		return hinted(invalid("nodes", "reservation %s is of nothing", r.Name), "name nodes, or say how many nodes or devices")
	case sizes > 1:
		return hinted(invalid("nodes", "reservation %s has more than one size", r.Name), "name nodes, or say how many nodes, or how many devices")
	case len(r.User) > state.IDBytesMax:
		return invalid("user", "the user's name is %d bytes long, at most %d", len(r.User), state.IDBytesMax)
	}
	return checkExpr("where", r.Where)
}

// checkReserved checks a reservation against queues, nodes and other reservations.
func (a *applier) checkReserved(r *pb.Reservation) *pb.Fault {
	if a.txn.Reservation(r.Name) != nil {
		return at(conflict("choose another name, or remove that one first", "there is a reservation %s already", r.Name), "name")
	}
	if r.Queue != "" && a.txn.Queue(r.Queue) == nil {
		return at(state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "use "+a.leaves(""), "there is no queue %q", cut(r.Queue)), "queue")
	}
	at1 := func(i int) string { return fmt.Sprintf("node_ids[%d]", i) }
	place := make(map[string]int, len(r.NodeIds))
	for i, id := range r.NodeIds {
		if a.txn.Node(id) == nil {
			return at(state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "llmos nodes lists them", "there is no node %q", cut(id)), at1(i))
		}
		if _, twice := place[id]; twice {
			return invalid(at1(i), "node %s is named twice", id)
		}
		place[id] = i
	}
	if r.Kind != pb.ReservationKind_RESERVATION_KIND_USE || len(r.NodeIds) == 0 {
		return nil
	}
	for _, other := range a.txn.Reservations() {
		if other.Kind != r.Kind || other.StartMs >= r.EndMs || r.StartMs >= other.EndMs {
			continue
		}
		for _, id := range other.NodeIds {
			if i, both := place[id]; both {
				return at(conflict(fmt.Sprintf("choose another node, or a time before %s or after %s", clock(other.StartMs), clock(other.EndMs)),
					"node %s is set aside by reservation %s already", id, other.Name), at1(i))
			}
		}
	}
	return nil
}

// removeReservation gives up a reservation, whether it has begun or not.
func (a *applier) removeReservation(c *pb.RemoveReservation) *pb.Fault {
	r := a.txn.Reservation(c.Name)
	if r == nil {
		return at(state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "llmos reserve lists them", "there is no reservation %q", cut(c.Name)), "name")
	}
	if len(c.User) > state.IDBytesMax {
		return invalid("user", "the user's name is %d bytes long, at most %d", len(c.User), state.IDBytesMax)
	}
	a.txn.ForgetReservation(r.Name)
	a.event("reservation.removed", "", "", "", "reservation %s was removed%s", r.Name, by(c.User))
	return nil
}

// unreserve takes a node that is removed out of the reservations. One that is of no other node ends.
func (a *applier) unreserve(nodeID string) {
	for _, r := range a.txn.Reservations() {
		if !slices.Contains(r.NodeIds, nodeID) {
			continue
		}
		next := state.CopyReservation(r)
		next.NodeIds = slices.DeleteFunc(slices.Clone(r.NodeIds), func(id string) bool { return id == nodeID })
		if len(next.NodeIds) > 0 {
			a.txn.PutReservation(next)
			continue
		}
		a.txn.ForgetReservation(r.Name)
		a.event("reservation.removed", "", "", "", "reservation %s has ended: its only node %s was removed", r.Name, nodeID)
	}
}

// drainNode keeps new work off a node, or ends that.
func (a *applier) drainNode(c *pb.DrainNode) *pb.Fault {
	old := a.txn.Node(c.NodeId)
	if old == nil {
		return at(state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "llmos nodes lists them", "there is no node %q", cut(c.NodeId)), "node_id")
	}
	if c.Drain == nil && old.Drain == nil {
		return nil
	}
	next := state.CopyNode(old)
	next.Drain = nil
	if d := c.Drain; d != nil {
		if d.StopAtMs < 0 || d.StopAtMs > timeMSMax {
			return hinted(invalid("drain.stop_at_ms", "the time %d is not possible", d.StopAtMs), "0 means that tasks are never stopped")
		}
		if len(d.User) > state.IDBytesMax {
			return invalid("drain.user", "the user's name is %d bytes long, at most %d", len(d.User), state.IDBytesMax)
		}
		next.Drain = &pb.Drain{SinceMs: a.txn.TimeMS(), StopAtMs: d.StopAtMs, Reason: cut(d.Reason), User: d.User}
		if old.Drain != nil {
			next.Drain.SinceMs = old.Drain.SinceMs
		}
		if proto.Equal(next.Drain, old.Drain) {
			return nil
		}
	}
	if f := a.txn.PutNode(next); f != nil {
		return f
	}
	switch d := next.Drain; {
	case d == nil:
		a.event("node.undrained", "", "", old.Id, "node %s takes new work again", old.Name)
	default:
		why, stop := "", ""
		if d.Reason != "" {
			why = ": " + d.Reason
		}
		if d.StopAtMs > 0 {
			stop = "; its tasks are stopped at " + clock(d.StopAtMs)
		}
		a.event("node.drained", "", "", old.Id, "node %s was drained%s and takes no new work%s%s", old.Name, by(d.User), stop, why)
	}
	return nil
}
