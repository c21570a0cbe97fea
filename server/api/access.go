package api

import (
	"context"
	"slices"

	"google.golang.org/grpc/metadata"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// rule says who may call a method and where it is answered.
type rule struct {
	roles  []pb.MemberRole    // certificates that may call it; nil: none
	anyone bool               // also without a certificate
	write  bool               // changes the cluster: a broken connection leaves its outcome unknown
	leader func(req any) bool // whether this request needs the leader; nil: the asked server answers
	long   bool               // takes minutes by its nature: only the caller bounds it
}

var (
	// A server's certificate may do what a person's may: it comes with the CA's key, so a
	// refusal would protect nothing. An agent's may open its session and renew itself.
	people  = []pb.MemberRole{pb.MemberRole_MEMBER_ROLE_USER, pb.MemberRole_MEMBER_ROLE_SERVER}
	agents  = []pb.MemberRole{pb.MemberRole_MEMBER_ROLE_AGENT}
	members = []pb.MemberRole{pb.MemberRole_MEMBER_ROLE_SERVER, pb.MemberRole_MEMBER_ROLE_AGENT, pb.MemberRole_MEMBER_ROLE_USER}
)

// rules is the one table of access. A method that is not in it is refused to everybody,
// and a test that walks the service descriptors fails.
var rules = map[string]rule{
	pb.ClusterService_SubmitJob_FullMethodName:       {roles: people, write: true, leader: always},
	pb.ClusterService_GetJob_FullMethodName:          {roles: people, leader: unlessStale},
	pb.ClusterService_ListJobs_FullMethodName:        {roles: people, leader: unlessStale},
	pb.ClusterService_StopJob_FullMethodName:         {roles: people, write: true, leader: always},
	pb.ClusterService_ExplainJob_FullMethodName:      {roles: people, leader: always},
	pb.ClusterService_WatchJob_FullMethodName:        {roles: people, leader: always},
	pb.ClusterService_ReadLogs_FullMethodName:        {roles: people, leader: always},
	pb.ClusterService_Exec_FullMethodName:            {roles: people},
	pb.ClusterService_Forward_FullMethodName:         {roles: people},
	pb.ClusterService_ListNodes_FullMethodName:       {roles: people, leader: unlessStale},
	pb.ClusterService_RemoveNode_FullMethodName:      {roles: people, write: true, leader: always},
	pb.ClusterService_GetStatus_FullMethodName:       {roles: people, leader: unlessLocal},
	pb.ClusterService_CreateJoinToken_FullMethodName: {roles: people, write: true, leader: always},

	pb.ClusterService_PlanJob_FullMethodName:            {roles: people, leader: always},
	pb.ClusterService_ListQueues_FullMethodName:         {roles: people, leader: unlessStale},
	pb.ClusterService_SetQueues_FullMethodName:          {roles: people, write: true, leader: always},
	pb.ClusterService_ListUsage_FullMethodName:          {roles: people, leader: always},
	pb.ClusterService_CreateReservation_FullMethodName:  {roles: people, write: true, leader: always},
	pb.ClusterService_RemoveReservation_FullMethodName:  {roles: people, write: true, leader: always},
	pb.ClusterService_ListReservations_FullMethodName:   {roles: people, leader: always},
	pb.ClusterService_GetSchedulerConfig_FullMethodName: {roles: people, leader: always},
	pb.ClusterService_SetSchedulerConfig_FullMethodName: {roles: people, write: true, leader: always},
	pb.ClusterService_DrainNode_FullMethodName:          {roles: people, write: true, leader: always},
	pb.ClusterService_GetForecast_FullMethodName:        {roles: people, leader: always},
	pb.ClusterService_ListCheckpoints_FullMethodName:    {roles: people, leader: unlessStale},
	pb.ClusterService_DivideGPU_FullMethodName:          {roles: people, write: true, leader: always, long: true},
	pb.ClusterService_RepairNode_FullMethodName:         {roles: people, write: true, leader: always},

	pb.JoinService_Join_FullMethodName:  {roles: members, anyone: true, write: true, leader: always},
	pb.JoinService_Renew_FullMethodName: {roles: members},

	pb.SessionService_Connect_FullMethodName: {roles: agents},

	// Served by agents, never here.
	pb.AgentService_ReadLogs_FullMethodName:       {},
	pb.AgentService_DivideGPU_FullMethodName:      {},
	pb.AgentService_RepairNode_FullMethodName:     {},
	pb.AgentService_Exec_FullMethodName:           {},
	pb.AgentService_Forward_FullMethodName:        {},
	pb.AgentService_ReadCheckpoint_FullMethodName: {},
}

func always(any) bool { return true }

func unlessStale(req any) bool {
	r, ok := req.(interface{ GetStale() bool })
	return !ok || !r.GetStale()
}

func unlessLocal(req any) bool {
	r, ok := req.(interface{ GetLocal() bool })
	return !ok || !r.GetLocal()
}

// callerKey is the metadata key in which a server tells the leader on whose behalf it
// calls: <role>/<member ID>, or nobody.
const (
	callerKey = "llmos-caller"
	nobody    = "-"
)

// call is what the gate found out about a call before its handler runs.
type call struct {
	caller    transport.Identity // zero when the caller has no certificate
	known     bool               // the caller has one
	forwarded bool               // by another server, which vouches for the caller
	peer      transport.Identity // who is at the other end of the connection
}

type callContextKey struct{}

// Caller gives the identity on whose behalf a handler runs: of the certificate, or of the
// forwarding server's word. ok is false for a caller without a certificate.
func Caller(ctx context.Context) (id transport.Identity, ok bool) {
	c, _ := ctx.Value(callContextKey{}).(call)
	return c.caller, c.known
}

// identify reads the peer's certificate and, from a server alone, the forwarded caller.
func identify(ctx context.Context, peerOf func(context.Context) (transport.Identity, bool)) (call, error) {
	peer, known := peerOf(ctx)
	c := call{caller: peer, known: known, peer: peer}
	md, _ := metadata.FromIncomingContext(ctx)
	told := md.Get(callerKey)
	if len(told) == 0 {
		return c, nil
	}
	if !known || peer.Role != pb.MemberRole_MEMBER_ROLE_SERVER || len(told) != 1 {
		return c, denied("only a server of the cluster may call on behalf of another")
	}
	c.forwarded = true
	c.caller, c.known = transport.Identity{}, false
	if told[0] == nobody {
		return c, nil
	}
	caller, err := parseCaller(told[0], peer.ClusterID)
	if err != nil {
		return c, err
	}
	c.caller, c.known = caller, true
	return c, nil
}

// authorise decides by the table alone.
func authorise(method string, c call) error {
	r, listed := rules[method]
	switch {
	case listed && r.anyone:
		return nil
	case !c.known:
		return denied("%s needs a certificate of this cluster", method).
			Hint("join first: a token for people is made with llmos token create --role user")
	case listed && slices.Contains(r.roles, c.caller.Role):
		return nil
	}
	return denied("%s %s may not call %s", transport.RoleName(c.caller.Role), c.caller.MemberID, method)
}

func denied(format string, args ...any) *fault.Error {
	return fault.New(pb.ErrorKind_ERROR_KIND_DENIED, format, args...)
}
