package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/jobspec"
)

// pastTolerance is how far back a reservation may start: a person who writes "now" is
// always a little late.
const pastTolerance = time.Minute

// CreateReservation sets room aside for a span of time. Nodes may be given by name.
func (s *cluster) CreateReservation(ctx context.Context, req *pb.CreateReservationRequest) (*pb.CreateReservationResponse, error) {
	if err := jobspec.ValidateReservation(req.GetReservation()); err != nil {
		return nil, err
	}
	st, err := s.b.Read(ctx)
	if err != nil {
		return nil, err
	}
	r := proto.CloneOf(req.GetReservation())
	if r.Kind == pb.ReservationKind_RESERVATION_KIND_UNSPECIFIED {
		r.Kind = pb.ReservationKind_RESERVATION_KIND_USE
	}
	r.User, r.CreatedMs, r.ModifyIndex = userOf(ctx), 0, 0
	now := s.now(st)
	if now-r.StartMs > pastTolerance.Milliseconds() {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "the start of the reservation, %s, has passed", time.UnixMilli(r.StartMs).UTC().Format(time.RFC3339)).
			Hint("give a start that is still to come, or now").At("start", 0)
	}
	if err := resolveNodes(st, r); err != nil {
		return nil, err
	}
	if r.Queue != "" && st.Queue(r.Queue) == nil {
		return nil, noQueue(r.Queue)
	}
	if old := st.Reservation(r.Name); old != nil {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "there is a reservation %s already", r.Name).
			Hint("choose another name, or remove it: llmos reserve rm %s", r.Name).At("name", 0)
	}
	res, err := s.propose(ctx, &pb.Command{Op: &pb.Command_CreateReservation{CreateReservation: &pb.CreateReservation{Reservation: r}}})
	if err != nil {
		return nil, err
	}
	s.log.Info("reservation made", "name", r.Name, "user", r.User)
	return &pb.CreateReservationResponse{Index: res.Index}, nil
}

func noQueue(name string) error {
	return fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "there is no queue %q", name).Hint("llmos queue ls lists them").At("queue", 0)
}

// resolveNodes turns names into IDs and refuses more room than there could be.
func resolveNodes(st *state.State, r *pb.Reservation) error {
	for i, name := range r.NodeIds {
		node, err := findNode(st, name)
		if err != nil {
			return fault.From(err).At(fmt.Sprintf("node[%d]", i), 0)
		}
		r.NodeIds[i] = node.Id
	}
	slices.Sort(r.NodeIds)
	r.NodeIds = slices.Compact(r.NodeIds)
	nodes, gpus := int32(0), int32(0)
	for n := range st.Nodes() {
		nodes++
		for _, d := range n.Devices {
			if d.Health != pb.DeviceHealth_DEVICE_HEALTH_GONE {
				gpus++
			}
		}
	}
	switch {
	case r.Nodes > nodes:
		return fault.New(pb.ErrorKind_ERROR_KIND_NO_CAPACITY, "the reservation is of %d nodes, and the cluster has %d", r.Nodes, nodes).At("nodes", 0)
	case r.Gpus > gpus:
		return fault.New(pb.ErrorKind_ERROR_KIND_NO_CAPACITY, "the reservation is of %d devices, and the cluster has %d", r.Gpus, gpus).At("gpus", 0)
	}
	return nil
}

// findNode gives a node by its ID or its name.
func findNode(st *state.State, name string) (*pb.Node, error) {
	if err := checkName("node_id", name, nameMax); err != nil {
		return nil, err
	}
	if node := st.Node(name); node != nil {
		return node, nil
	}
	if node := st.NodeByName(name); node != nil {
		return node, nil
	}
	return nil, fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "there is no node %q", name).Hint("llmos nodes lists them")
}

// RemoveReservation gives the room of a reservation free.
func (s *cluster) RemoveReservation(ctx context.Context, req *pb.RemoveReservationRequest) (*pb.RemoveReservationResponse, error) {
	if err := checkName("name", req.GetName(), nameMax); err != nil {
		return nil, err
	}
	st, err := s.b.Read(ctx)
	if err != nil {
		return nil, err
	}
	if st.Reservation(req.GetName()) == nil {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "there is no reservation %q", req.GetName()).Hint("llmos reserve ls lists them").At("name", 0)
	}
	_, err = s.propose(ctx, &pb.Command{Op: &pb.Command_RemoveReservation{RemoveReservation: &pb.RemoveReservation{Name: req.GetName(), User: userOf(ctx)}}})
	if err != nil {
		return nil, err
	}
	s.log.Info("reservation removed", "name", req.GetName(), "user", userOf(ctx))
	return &pb.RemoveReservationResponse{}, nil
}

// ListReservations gives all reservations by their start.
func (s *cluster) ListReservations(ctx context.Context, _ *pb.ListReservationsRequest) (*pb.ListReservationsResponse, error) {
	st, err := s.b.Read(ctx)
	if err != nil {
		return nil, err
	}
	all := slices.Collect(st.Reservations())
	slices.SortStableFunc(all, func(a, b *pb.Reservation) int {
		return cmp.Or(cmp.Compare(a.StartMs, b.StartMs), strings.Compare(a.Name, b.Name))
	})
	return &pb.ListReservationsResponse{Reservations: all}, nil
}
