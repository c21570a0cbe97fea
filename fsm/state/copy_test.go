package state

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "llmos/proto/llmos/v1"
)

// fill sets every field of a message to something.
func fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString("k").MapKey(), protoreflect.ValueOfString("v"))
		case f.IsList() && f.Message() != nil:
			if depth > 0 {
				fill(m.Mutable(f).List().AppendMutable().Message(), depth-1)
			}
		case f.IsList() && f.Kind() == protoreflect.Int32Kind:
			m.Mutable(f).List().Append(protoreflect.ValueOfInt32(7))
		case f.IsList():
			m.Mutable(f).List().Append(protoreflect.ValueOfString("s"))
		case f.Message() != nil:
			if depth > 0 {
				fill(m.Mutable(f).Message(), depth-1)
			}
		default:
			m.Set(f, something(f))
		}
	}
}

func something(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(3)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(4)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(5)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(6)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("b"))
	}
	return protoreflect.ValueOfString("s")
}

// TestCopies fails when a record gets a field that its copy does not take over.
func TestCopies(t *testing.T) {
	job, attempt, task, node := &pb.Job{}, &pb.Attempt{}, &pb.Task{}, &pb.Node{}
	page, account, device, reservation := &pb.DeviceAccount{}, &pb.NodeAccount{}, &pb.Device{}, &pb.Reservation{}
	checkpoint := &pb.Checkpoint{}
	for _, m := range []proto.Message{job, attempt, task, node, page, account, device, reservation, checkpoint} {
		fill(m.ProtoReflect(), 3)
	}
	gone := goneDevice(device)
	gone.Health, gone.Reason = device.Health, device.Reason
	for _, c := range []struct{ got, want proto.Message }{
		{CopyJob(job), job}, {CopyAttempt(attempt), attempt}, {CopyTask(task), task}, {CopyNode(node), node},
		{copyPage(page), page}, {copyAccount(account), account}, {gone, device}, {CopyReservation(reservation), reservation},
		{CopyCheckpoint(checkpoint), checkpoint},
	} {
		if !proto.Equal(c.got, c.want) {
			t.Errorf("%T: the copy is %v of %v", c.want, c.got, c.want)
		}
	}
}
