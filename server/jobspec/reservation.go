package jobspec

import (
	"fmt"
	"unicode/utf8"

	pb "llmos/proto/llmos/v1"
)

// Bounds of an advance reservation.
const (
	ReservationNodesMax = 10_000
	ReservationGPUsMax  = 1_000_000
	ReservationMSMax    = DurationMSMax // from its start to its end
	ReasonBytesMax      = 1024          // of a reason given to anything
)

// ValidateReservation checks a reservation from anywhere, as far as it can be judged
// without the cluster and the clock: whether its nodes and its queue exist, and whether it
// has ended already, is asked where they are known. The error is of type Faults.
func ValidateReservation(r *pb.Reservation) error {
	c := &checker{}
	if r == nil {
		c.add("", "there is no reservation")
		return c.faults.err()
	}
	if !isName(r.Name) {
		c.add("name", "%s is not a reservation's name", quoted(r.Name)).Hint(nameHint)
	}
	if r.Kind < 0 || r.Kind > pb.ReservationKind_RESERVATION_KIND_MAINTENANCE {
		c.add("kind", "kind %d is not known", r.Kind)
	}
	c.reservationSpan(r)
	c.reservationRoom(r)
	if r.Where != nil {
		c.where("where", r.Where)
	}
	if r.Queue != "" && !isQueueName(r.Queue) {
		c.add("queue", "%s is not a queue's name", quoted(r.Queue)).Hint(nameHint)
	}
	if r.Queue != "" && r.Kind == pb.ReservationKind_RESERVATION_KIND_MAINTENANCE {
		c.add("queue", "nobody runs in a maintenance window, not even a queue's jobs").Hint("leave the queue out")
	}
	c.reason(r.Reason)
	return c.faults.err()
}

func (c *checker) reservationSpan(r *pb.Reservation) {
	switch {
	case r.StartMs <= 0:
		c.add("start", "the reservation has no start").Hint("such as 2026-11-25T08:00Z")
	case r.EndMs <= r.StartMs:
		c.add("end", "the reservation ends before it starts").Hint("give how long it lasts, such as 2h")
	case r.EndMs-r.StartMs > ReservationMSMax:
		c.add("end", "the reservation lasts %s, at most %s", FormatDuration(r.EndMs-r.StartMs), FormatDuration(ReservationMSMax))
	}
}

func (c *checker) reservationRoom(r *pb.Reservation) {
	ways := 0
	for _, given := range []bool{len(r.NodeIds) > 0, r.Nodes != 0, r.Gpus != 0} {
		if given {
			ways++
		}
	}
	switch {
	case ways == 0:
		c.add("nodes", "the reservation says neither which nodes nor how many nodes or devices").Hint("give the nodes, a number of nodes, or a number of devices")
	case ways > 1:
		c.add("nodes", "the reservation says in more than one way what it reserves").Hint("give the nodes, a number of nodes, or a number of devices")
	case r.Nodes < 0 || r.Nodes > ReservationNodesMax:
		c.add("nodes", "%d nodes are out of range", r.Nodes).Hint("use a number from 1 to %d", ReservationNodesMax)
	case r.Gpus < 0 || r.Gpus > ReservationGPUsMax:
		c.add("gpus", "%d devices are out of range", r.Gpus).Hint("use a number from 1 to %d", ReservationGPUsMax)
	case len(r.NodeIds) > ReservationNodesMax:
		c.add("node", "%d nodes are named, at most %d", len(r.NodeIds), ReservationNodesMax)
	case len(r.NodeIds) > 0 && r.Where != nil:
		c.add("where", "the nodes are named, so a condition on them says nothing").Hint("leave it out, or give a number of nodes")
	}
	seen := map[string]bool{}
	for i, id := range r.NodeIds {
		if seen[id] {
			c.add(fmt.Sprintf("node[%d]", i), "node %s is named twice", quoted(id)).Hint("keep one")
		}
		seen[id] = true
	}
}

// reason checks a text for those who ask later.
func (c *checker) reason(text string) {
	switch {
	case len(text) > ReasonBytesMax:
		c.add("reason", "the reason is %d bytes long, at most %d", len(text), ReasonBytesMax)
	case !utf8.ValidString(text):
		c.add("reason", "the reason is not UTF-8")
	}
}
