package api

import (
	"context"
	"crypto/tls"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoreflect"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

const roleNone = pb.MemberRole_MEMBER_ROLE_UNSPECIFIED

func dialAnonymous(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
	})))
}

// TestEveryMethodHasARule walks the generated descriptors: a new method must be given a
// rule, and a rule must belong to a method.
func TestEveryMethodHasARule(t *testing.T) {
	left := maps.Clone(rules)
	eachMethod(func(full string, _ protoreflect.MethodDescriptor) {
		if _, ok := rules[full]; !ok {
			t.Errorf("%s has no rule: add it to the table in access.go", full)
		}
		delete(left, full)
	})
	for full := range left {
		t.Errorf("the rule of %s belongs to no method", full)
	}
}

// allowed repeats the intent of the table by hand: the roles that may call each method.
var allowed = map[string][]pb.MemberRole{
	"ClusterService": {roleUser, roleServer},
	"Join":           {roleNone, roleUser, roleServer, roleAgent},
	"Renew":          {roleUser, roleServer, roleAgent},
	"Connect":        {roleAgent},
}

// TestAccess calls every method as every role over real connections.
func TestAccess(t *testing.T) {
	r := newRig(t)
	server := r.server("s-000000000001")
	members := map[pb.MemberRole]string{roleNone: "", roleServer: "s-000000000009", roleAgent: "n-000000000009", roleUser: "jane"}
	for role, id := range members {
		conn := r.conn(server, role, id)
		eachMethod(func(full string, m protoreflect.MethodDescriptor) {
			roles := allowed[shortMethod(full)]
			if strings.Contains(full, ".ClusterService/") {
				roles = allowed["ClusterService"]
			}
			refused := fault.Kind(callEmpty(t, conn, full, m)) == pb.ErrorKind_ERROR_KIND_DENIED
			if want := !slices.Contains(roles, role); refused != want {
				t.Errorf("%s as %v: refused %v, want %v", full, role, refused, want)
			}
		})
	}
}

// callEmpty calls any method with an empty message and gives its first error.
func callEmpty(t *testing.T, conn *grpc.ClientConn, full string, m protoreflect.MethodDescriptor) error {
	types := methodTypes()[full]
	req, reply := types.in.New().Interface(), types.out.New().Interface()
	if !m.IsStreamingServer() {
		return conn.Invoke(testContext(t), full, req, reply)
	}
	stream, err := conn.NewStream(testContext(t), &grpc.StreamDesc{ServerStreams: true, ClientStreams: m.IsStreamingClient()}, full)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(req); err == nil {
		stream.CloseSend()
	}
	return stream.RecvMsg(reply)
}

// TestUnlistedMethodIsRefused holds the default.
func TestUnlistedMethodIsRefused(t *testing.T) {
	c := call{known: true}
	c.caller.Role = roleServer
	wantKind(t, "unlisted", authorise("/llmos.v1.ClusterService/DropEverything", c), pb.ErrorKind_ERROR_KIND_DENIED)
}

// TestSpoofedCaller sends the metadata by which servers vouch for callers, from
// everybody: it is believed from a server alone, and only when it names a caller.
func TestSpoofedCaller(t *testing.T) {
	r := newRig(t)
	server := r.server("s-000000000001")
	for _, c := range []struct {
		name   string
		role   pb.MemberRole
		member string
		told   []string
		want   pb.ErrorKind
	}{
		{"an agent as a person", roleAgent, "n-000000000009", []string{"user/jane"}, pb.ErrorKind_ERROR_KIND_DENIED},
		{"a person as a server", roleUser, "jane", []string{"server/s-000000000001"}, pb.ErrorKind_ERROR_KIND_DENIED},
		{"nobody as a person", roleNone, "", []string{"user/jane"}, pb.ErrorKind_ERROR_KIND_DENIED},
		{"a server for a person", roleServer, "s-000000000009", []string{"user/jane"}, 0},
		{"a server for an agent", roleServer, "s-000000000009", []string{"agent/n-000000000009"}, pb.ErrorKind_ERROR_KIND_DENIED},
		{"a server for nobody", roleServer, "s-000000000009", []string{"-"}, pb.ErrorKind_ERROR_KIND_DENIED},
		{"a server for two", roleServer, "s-000000000009", []string{"user/jane", "user/joe"}, pb.ErrorKind_ERROR_KIND_DENIED},
		{"a server for a role that is none", roleServer, "s-000000000009", []string{"root/jane"}, pb.ErrorKind_ERROR_KIND_DENIED},
		{"a server for a broken ID", roleServer, "s-000000000009", []string{"user/"}, pb.ErrorKind_ERROR_KIND_DENIED},
	} {
		ctx := testContext(t)
		for _, told := range c.told {
			ctx = metadata.AppendToOutgoingContext(ctx, callerKey, told)
		}
		_, err := pb.NewClusterServiceClient(r.conn(server, c.role, c.member)).ListNodes(ctx, &pb.ListNodesRequest{})
		wantKind(t, c.name, err, c.want)
	}
}

// TestPanicIsAFault has a handler fall over; the server must live on.
func TestPanicIsAFault(t *testing.T) {
	r := newRig(t)
	server := r.server("s-000000000001")
	api := pb.NewClusterServiceClient(r.conn(server, roleUser, "jane"))
	server.panics = true
	_, err := api.ListNodes(testContext(t), &pb.ListNodesRequest{})
	wantKind(t, "unary", err, pb.ErrorKind_ERROR_KIND_INTERNAL)
	stream, err := api.WatchJob(testContext(t), &pb.WatchJobRequest{JobId: "x"})
	if err == nil {
		_, err = stream.Recv()
	}
	wantKind(t, "stream", err, pb.ErrorKind_ERROR_KIND_INTERNAL)
	server.panics = false
	if _, err := api.ListNodes(testContext(t), &pb.ListNodesRequest{}); err != nil {
		t.Error(err)
	}
}

// TestHandlersSeeTheCaller checks Caller without and with a certificate.
func TestHandlersSeeTheCaller(t *testing.T) {
	if _, ok := Caller(context.Background()); ok {
		t.Error("a context without a call has a caller")
	}
}
