package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// place is a call that needs the leader, as done on this server and as done through a
// connection to another. Each says whether the caller has been sent anything.
type place struct {
	here  func() (sent bool, err error)
	there func(ctx context.Context, conn *grpc.ClientConn) (sent bool, err error)
}

// atLeader answers the call where the leader is. While there is none it waits for a
// bounded time, and it tries again only what was surely not applied. A call that was
// forwarded here is never forwarded again, so that two servers with different views of
// the leader cannot send it round for ever.
func (g *gate) atLeader(ctx context.Context, c call, write bool, p place) error {
	patience := time.NewTimer(g.wait)
	defer patience.Stop()
	wait := leaderPoll
	for {
		sent, err := g.tryLeader(ctx, c, write, p)
		if err == nil || sent || c.forwarded || !unapplied(err) {
			return err
		}
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-patience.C:
			again.Stop()
			return outOfPatience(err)
		case <-g.b.Stopping():
			again.Stop()
			return stopping()
		case <-ctx.Done():
			again.Stop()
			return fault.From(ctx.Err())
		}
		if fault.Kind(err) == pb.ErrorKind_ERROR_KIND_UNAVAILABLE {
			wait = min(2*wait, leaderPollMost) // perhaps it has too much to do
		}
	}
}

func (g *gate) tryLeader(ctx context.Context, c call, write bool, p place) (sent bool, err error) {
	id, addr, isMe := g.b.Leader()
	if isMe {
		return p.here()
	}
	// A leader that is not ready yet names itself without being one.
	if c.forwarded || id == "" || id == g.b.ServerID() {
		return false, notLeader(g.b.ServerID(), addr)
	}
	conn, err := g.b.LeaderConn(ctx)
	if err != nil {
		return false, fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "reach the leader %s: %w", id, err)
	}
	ctx, cancel := g.whileLeads(ctx, id, write)
	defer cancel(nil)
	sent, err = p.there(ctx, conn)
	if cause := context.Cause(ctx); err != nil && (errors.Is(cause, errDeposed) || errors.Is(cause, errStopping)) {
		err = status.Errorf(codes.Unavailable, "%s: %v", id, cause)
	}
	return sent, fault.Crossed(err, write)
}

var (
	errDeposed  = errors.New("the cluster has another leader now")
	errStopping = errors.New("the server that asked it is stopping")
)

// whileLeads ends the context when this server comes to know another leader than id: a
// leader that was cut off or stopped would otherwise be waited for until the caller's end.
// A read also ends when this server stops; a write has a moment to learn its outcome.
func (g *gate) whileLeads(ctx context.Context, id string, write bool) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	var look *time.Timer
	armed := make(chan struct{})
	look = time.AfterFunc(deposedCheck, func() {
		<-armed
		if now, _, _ := g.b.Leader(); now != "" && now != id {
			cancel(errDeposed)
		} else if !write && isStopping(g.b) {
			cancel(errStopping)
		} else if ctx.Err() == nil {
			look.Reset(deposedCheck)
		}
	})
	close(armed)
	return ctx, func(cause error) {
		look.Stop()
		cancel(cause)
	}
}

// unapplied says whether the call may be tried again at once: by the meaning of these two
// kinds nothing was applied. A read that found its connection broken is UNAVAILABLE, a
// write UNKNOWN (see fault.Crossed).
func unapplied(err error) bool {
	kind := fault.Kind(err)
	return kind == pb.ErrorKind_ERROR_KIND_NOT_LEADER || kind == pb.ErrorKind_ERROR_KIND_UNAVAILABLE
}

func notLeader(serverID, leaderAddr string) error {
	f := fault.New(pb.ErrorKind_ERROR_KIND_NOT_LEADER, "server %s does not lead the cluster", serverID)
	if leaderAddr != "" {
		f.Hint("the leader is at %s", leaderAddr)
	}
	f.Fault.LeaderAddr = leaderAddr
	return f
}

// outOfPatience is what the caller is told at the end of the wait for a leader.
func outOfPatience(last error) error {
	if fault.Kind(last) != pb.ErrorKind_ERROR_KIND_NOT_LEADER {
		return last
	}
	f := fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "the cluster has no leader at the moment; nothing was done").
		Hint("more than half of the servers must be up and reach each other")
	f.Fault.LeaderAddr = fault.From(last).Fault.LeaderAddr
	return f
}

// stopping is what a call is told that waited when this server began to stop.
func stopping() error {
	return fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "this server is stopping").Hint("nothing was done; try another server")
}

func isStopping(b Backend) bool {
	select {
	case <-b.Stopping():
		return true
	default:
		return false
	}
}

// protoTypes are the messages of one method.
type protoTypes struct{ in, out protoreflect.MessageType }

// methodTypes finds the messages of every method of llmos.v1 in the generated descriptors.
func methodTypes() map[string]protoTypes {
	found := make(map[string]protoTypes)
	eachMethod(func(full string, m protoreflect.MethodDescriptor) {
		in, errIn := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
		out, errOut := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
		if err := errors.Join(errIn, errOut); err != nil {
			panic(fmt.Sprintf("api: the generated code of %s is incomplete: %v", full, err))
		}
		found[full] = protoTypes{in: in, out: out}
	})
	return found
}

// eachMethod walks the methods of every service of llmos.v1, named as gRPC names them.
func eachMethod(visit func(full string, m protoreflect.MethodDescriptor)) {
	for _, file := range []protoreflect.FileDescriptor{pb.File_llmos_v1_api_proto, pb.File_llmos_v1_session_proto} {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				visit(fmt.Sprintf("/%s/%s", service.FullName(), m.Name()), m)
			}
		}
	}
}

func (g *gate) forwardUnary(ctx context.Context, conn *grpc.ClientConn, c call, method string, req proto.Message) (proto.Message, error) {
	limit := forwardLimit
	if rules[method].long {
		limit = divideTimeout
	}
	ctx, cancel := context.WithTimeout(vouch(ctx, c), limit)
	defer cancel()
	reply := g.types[method].out.New().Interface()
	if err := conn.Invoke(ctx, method, req, reply); err != nil {
		return nil, err
	}
	return reply, nil
}

// forwardStream relays a server-streaming call message by message; the leader waits for a
// slow caller through both connections' flow control.
func (g *gate) forwardStream(ctx context.Context, conn *grpc.ClientConn, c call, method string, req proto.Message, to grpc.ServerStream) (sent bool, err error) {
	ctx, cancel := context.WithCancel(vouch(ctx, c))
	defer cancel()
	from, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return false, err
	}
	if err := errors.Join(from.SendMsg(req), from.CloseSend()); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	for {
		m := g.types[method].out.New().Interface()
		err := from.RecvMsg(m)
		if errors.Is(err, io.EOF) {
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
		sent = true
		if err := to.SendMsg(m); err != nil {
			return sent, err
		}
	}
}

// vouch tells the leader on whose behalf this server calls.
func vouch(ctx context.Context, c call) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs(callerKey, callerString(c)))
}

func callerString(c call) string {
	if !c.known {
		return nobody
	}
	return transport.RoleName(c.caller.Role) + "/" + c.caller.MemberID
}

// parseCaller reads what callerString wrote.
func parseCaller(s, clusterID string) (transport.Identity, error) {
	word, member, _ := strings.Cut(s, "/")
	role, err := transport.ParseRole(word)
	id := transport.Identity{ClusterID: clusterID, Role: role, MemberID: member}
	if err = errors.Join(err, id.Validate()); err != nil {
		return transport.Identity{}, denied("a server forwarded a call for %q, which names no caller", s)
	}
	return id, nil
}
