package transport_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// peers is a JoinService that answers Renew with who called, and records secrets.
type peers struct {
	pb.UnimplementedJoinServiceServer
	join func(ctx context.Context, req *pb.JoinRequest) (*pb.JoinResponse, error)
}

func (p *peers) Renew(ctx context.Context, req *pb.RenewRequest) (*pb.RenewResponse, error) {
	id, ok := transport.PeerIdentity(ctx)
	if !ok {
		return &pb.RenewResponse{CertificateDer: []byte("nobody")}, nil
	}
	return &pb.RenewResponse{CertificateDer: []byte(id.String())}, nil
}

func (p *peers) Join(ctx context.Context, req *pb.JoinRequest) (*pb.JoinResponse, error) {
	return p.join(ctx, req)
}

// serveGRPC serves the service on a port's h2 until the test ends.
func serveGRPC(t *testing.T, creds *transport.Credentials, service pb.JoinServiceServer) string {
	t.Helper()
	p := openPort(t, creds)
	s := grpc.NewServer(transport.ServerOptions()...)
	pb.RegisterJoinServiceServer(s, service)
	done := make(chan error, 1)
	l := p.Listener(transport.ProtoGRPC)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return p.Addr().String()
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestGRPCKnowsItsPeers(t *testing.T) {
	authority := newCA(t, cluster)
	addr := serveGRPC(t, member(t, authority, server, "s-1"), &peers{})
	for _, role := range []pb.MemberRole{server, agent, user} {
		creds := member(t, authority, role, "m-1")
		client, err := transport.NewClient(addr, creds, server)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := pb.NewJoinServiceClient(client).Renew(within(t), &pb.RenewRequest{})
		if err != nil || string(resp.CertificateDer) != creds.Identity().String() {
			t.Errorf("the server sees %q (%v), want %v", resp.GetCertificateDer(), err, creds.Identity())
		}
		client.Close()
	}
	if _, ok := transport.PeerIdentity(context.Background()); ok {
		t.Error("a context without a call has a peer")
	}
}

func TestGRPCChecksTheServer(t *testing.T) {
	authority := newCA(t, cluster)
	addr := serveGRPC(t, member(t, authority, agent, "n-1"), &peers{})
	creds := member(t, authority, server, "s-1")
	for _, c := range []struct {
		want   pb.MemberRole
		member string
		says   string
	}{
		{server, "", "want role server"},
		{agent, "n-2", "want member n-2"},
		{agent, "n-1", ""},
		{anyRole, "", ""},
	} {
		client, err := transport.NewMemberClient(addr, creds, c.want, c.member)
		if err != nil {
			t.Fatal(err)
		}
		_, err = pb.NewJoinServiceClient(client).Renew(within(t), &pb.RenewRequest{})
		if c.says == "" && err != nil {
			t.Errorf("want %v %q: %v", c.want, c.member, err)
		}
		if c.says != "" && (status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("want %v %q: error is %v", c.want, c.member, err)
		}
		client.Close()
	}
}

func TestGRPCRefusesOtherListeners(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(transport.ServerOptions()...)
	pb.RegisterJoinServiceServer(s, &peers{})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	defer func() { s.Stop(); <-done }()
	client, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := pb.NewJoinServiceClient(client).Renew(within(t), &pb.RenewRequest{}); err == nil {
		t.Fatal("a plain connection is served")
	}
}

func TestGRPCBoundsMessages(t *testing.T) {
	authority := newCA(t, cluster)
	addr := serveGRPC(t, member(t, authority, server, "s-1"), &peers{})
	client, err := transport.NewClient(addr, member(t, authority, agent, "n-1"), server)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	renew := func(size int) error {
		_, err := pb.NewJoinServiceClient(client).Renew(within(t), &pb.RenewRequest{CsrDer: make([]byte, size)})
		return err
	}
	if err := renew(transport.MessageBytesMax - 64); err != nil {
		t.Errorf("a message within the bound: %v", err)
	}
	if err := renew(transport.MessageBytesMax + 1); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message over the bound: %v", err)
	}
}

// TestGRPCComesBack restarts the server on its port: the client connects again by itself.
func TestGRPCComesBack(t *testing.T) {
	authority := newCA(t, cluster)
	creds := member(t, authority, server, "s-1")
	start := func(addr string) (*transport.Port, func()) {
		var p *transport.Port
		eventually(t, "the address is free", func() (ok bool) {
			var err error
			p, err = transport.Listen(addr, creds, quiet())
			return err == nil
		})
		s := grpc.NewServer(transport.ServerOptions()...)
		pb.RegisterJoinServiceServer(s, &peers{})
		done := make(chan struct{}, 2)
		l := p.Listener(transport.ProtoGRPC)
		go func() { _ = p.Serve(); done <- struct{}{} }()
		go func() { _ = s.Serve(l); done <- struct{}{} }()
		return p, func() { p.Close(); s.Stop(); <-done; <-done }
	}
	p, stop := start("127.0.0.1:0")
	client, err := transport.NewClient(p.Addr().String(), member(t, authority, agent, "n-1"), server)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	call := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := pb.NewJoinServiceClient(client).Renew(ctx, &pb.RenewRequest{})
		return err
	}
	eventually(t, "the first server answers", func() bool { return call() == nil })
	stop()
	if err := call(); err == nil {
		t.Fatal("a stopped server answers")
	}
	_, stop = start(p.Addr().String())
	defer stop()
	eventually(t, "the second server answers", func() bool { return call() == nil })
}
