package state

import (
	"iter"

	pb "llmos/proto/llmos/v1"
)

var configKey = []byte("scheduler")

// SchedulerConfig is the scheduling policy; the empty record, all defaults, before any was set.
func (s *State) SchedulerConfig() *pb.SchedulerConfig { return orEmpty(lookup(s.config, configKey)) }

// SchedulerConfig is the scheduling policy; the empty record, all defaults, before any was set.
func (t *Txn) SchedulerConfig() *pb.SchedulerConfig { return orEmpty(t.config.rec(configKey)) }

func orEmpty(c *pb.SchedulerConfig) *pb.SchedulerConfig {
	if c == nil {
		return &pb.SchedulerConfig{}
	}
	return c
}

// PutSchedulerConfig writes the scheduling policy.
func (t *Txn) PutSchedulerConfig(c *pb.SchedulerConfig) {
	c.ModifyIndex = t.index
	t.config.putRec(configKey, c)
}

// Reservation gives the reservation of a name; nil when there is none.
func (s *State) Reservation(name string) *pb.Reservation { return lookup(s.reservations, []byte(name)) }

// Reservations walks the reservations by name.
func (s *State) Reservations() iter.Seq[*pb.Reservation] { return records(s.reservations, nil) }

// Reservation gives the reservation of a name; nil when there is none.
func (t *Txn) Reservation(name string) *pb.Reservation { return t.reservations.rec([]byte(name)) }

// Reservations gives all reservations by name: few, fsm bounds them.
func (t *Txn) Reservations() (out []*pb.Reservation) {
	for r := range values(t.reservations.root(), nil) {
		out = append(out, r.rec)
	}
	return out
}

// ReservationCount is the number of reservations.
func (t *Txn) ReservationCount() int { return t.reservations.len() }

// CopyReservation copies a reservation so that its fields can be set; its lists are shared.
func CopyReservation(r *pb.Reservation) *pb.Reservation {
	return &pb.Reservation{Name: r.Name, Kind: r.Kind, StartMs: r.StartMs, EndMs: r.EndMs, NodeIds: r.NodeIds, Nodes: r.Nodes,
		Gpus: r.Gpus, Where: r.Where, Queue: r.Queue, User: r.User, Reason: r.Reason, CreatedMs: r.CreatedMs, ModifyIndex: r.ModifyIndex}
}

// PutReservation writes a reservation.
func (t *Txn) PutReservation(r *pb.Reservation) {
	r.ModifyIndex = t.index
	t.reservations.putRec([]byte(r.Name), r)
}

// ForgetReservation removes a reservation.
func (t *Txn) ForgetReservation(name string) { t.reservations.removeRec([]byte(name)) }

// ReservationsEndedBefore gives at most limit names of reservations that ended before a time.
func (t *Txn) ReservationsEndedBefore(ms int64, limit int) (names []string) {
	for r := range values(t.reservations.root(), nil) {
		if len(names) == limit {
			break
		}
		if r.rec.EndMs < ms {
			names = append(names, r.rec.Name)
		}
	}
	return names
}
