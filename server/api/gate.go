package api

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

const (
	leaderWait     = 3 * time.Second        // how long a call waits for a leader to be there
	leaderPoll     = 20 * time.Millisecond  // between looks at who leads
	leaderPollMost = 320 * time.Millisecond // the same while the leader says UNAVAILABLE
	deposedCheck   = 200 * time.Millisecond // between looks whether a forwarded call's leader still leads
	forwardLimit   = 10 * time.Second       // of one forwarded unary call
)

// gate stands before every call: identity, access, place, and the shape of failures.
type gate struct {
	b     Backend
	log   *slog.Logger
	peer  func(context.Context) (transport.Identity, bool)
	joins *limiter
	types map[string]protoTypes
	wait  time.Duration // leaderWait; tests shorten it
}

func newGate(b Backend, log *slog.Logger) *gate {
	return &gate{
		b: b, log: log, peer: transport.PeerIdentity,
		joins: newLimiter(b.Now), types: methodTypes(), wait: leaderWait,
	}
}

// admit identifies and authorises the caller, and puts it into the context.
func (g *gate) admit(ctx context.Context, method string) (context.Context, call, error) {
	c, err := identify(ctx, g.peer)
	if err == nil {
		err = authorise(method, c)
	}
	if err == nil && method == pb.JoinService_Join_FullMethodName && !c.forwarded {
		err = g.joins.admit(ctx)
	}
	if err != nil {
		level := slog.LevelWarn
		if !c.known {
			level = slog.LevelDebug // anybody who reaches the port could fill the log
		}
		g.log.Log(ctx, level, "call refused", "method", method, "caller", callerString(c), "peer", c.peer.MemberID, "err", err)
		return ctx, c, err
	}
	return context.WithValue(ctx, callContextKey{}, c), c, nil
}

func (g *gate) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer g.settle(info.FullMethod, &err)
	ctx, c, err := g.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	r := rules[info.FullMethod]
	if r.leader == nil || !r.leader(req) {
		return handler(ctx, req)
	}
	msg, ok := req.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("request of %s is a %T, not a message", info.FullMethod, req)
	}
	err = g.atLeader(ctx, c, r.write, place{
		here: func() (bool, error) {
			var err error
			resp, err = handler(ctx, req)
			return false, err
		},
		there: func(ctx context.Context, conn *grpc.ClientConn) (bool, error) {
			reply, err := g.forwardUnary(ctx, conn, c, info.FullMethod, msg)
			resp = reply
			return false, err
		},
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func (g *gate) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer g.settle(info.FullMethod, &err)
	ctx, c, err := g.admit(ss.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	r := rules[info.FullMethod]
	if r.leader == nil || info.IsClientStream {
		return handler(srv, &served{ServerStream: ss, ctx: ctx})
	}
	req := g.types[info.FullMethod].in.New().Interface()
	if err := ss.RecvMsg(req); err != nil {
		return err
	}
	if !r.leader(req) {
		return handler(srv, &served{ServerStream: ss, ctx: ctx, first: req})
	}
	return g.atLeader(ctx, c, r.write, place{
		here: func() (bool, error) {
			s := &served{ServerStream: ss, ctx: ctx, first: req}
			err := handler(srv, s)
			return s.sent, err
		},
		there: func(ctx context.Context, conn *grpc.ClientConn) (bool, error) {
			return g.forwardStream(ctx, conn, c, info.FullMethod, req, ss)
		},
	})
}

// settle ends a call: a panic becomes INTERNAL with a log line, and any error a fault.
func (g *gate) settle(method string, err *error) {
	if p := recover(); p != nil {
		g.log.Error("panic in a handler", "method", method, "panic", p, "stack", string(debug.Stack()))
		*err = fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "a defect of llmos ended %s", shortMethod(method)).
			Hint("the log of server %s has the details", g.b.ServerID())
		return
	}
	if *err == nil {
		return
	}
	f := fault.From(*err)
	if f.Fault.Kind == pb.ErrorKind_ERROR_KIND_INTERNAL {
		g.log.Error("call failed", "method", method, "err", *err)
	}
	*err = f
}

// served is a stream with the caller in its context. first, when set, is a message that
// the gate has read already and the handler will receive.
type served struct {
	grpc.ServerStream
	ctx   context.Context
	first proto.Message
	sent  bool
}

func (s *served) Context() context.Context { return s.ctx }

func (s *served) RecvMsg(m any) error {
	if s.first == nil {
		return s.ServerStream.RecvMsg(m)
	}
	proto.Merge(m.(proto.Message), s.first)
	s.first = nil
	return nil
}

func (s *served) SendMsg(m any) error {
	s.sent = true
	return s.ServerStream.SendMsg(m)
}

func shortMethod(method string) string { return method[strings.LastIndexByte(method, '/')+1:] }
