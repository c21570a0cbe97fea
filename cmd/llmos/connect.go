package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"llmos/proto/client"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

const (
	callTimeout  = 10 * time.Second // of a verb that asks and prints; longer than an election
	patience     = 2 * time.Second  // before a person is told what is waited for
	renewTimeout = 3 * time.Second  // to renew a certificate before the verb
	learnTimeout = 5 * time.Second  // to learn the servers' addresses beside the verb
)

// connection holds the flags of every verb that speaks to a cluster.
type connection struct {
	dir     string
	servers []string
	timeout time.Duration
}

func (c *connection) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&c.dir, "client-dir", "", "`FOLDER` of your credentials (default ~/.config/llmos)")
	flags.StringSliceVar(&c.servers, "server", nil, "ask these servers instead of those known, `HOST:PORT`,...")
	flags.DurationVar(&c.timeout, "timeout", callTimeout, "how long (`TIME`) to try")
	envFlag(flags, "client-dir", "LLMOS_CLIENT_DIR")
	envFlag(flags, "server", "LLMOS_SERVER")
}

// session is a client with what is learned while it is used.
type session struct {
	*client.Client
	dir    string
	file   *clientFile
	pinned bool // the addresses were given, so those that are learned are not saved
	named  chan []string
	cancel context.CancelFunc
}

// open makes a client of the known cluster. Beside the verb's calls it asks once for the
// servers' addresses, so that the next verb finds the cluster when this server is gone.
func (a *app) open(ctx context.Context, c *connection) (*session, error) {
	dir, err := a.clientDir(c.dir)
	if err != nil {
		return nil, err
	}
	file, creds, err := openClientDir(dir)
	if err != nil {
		return nil, err
	}
	s := &session{dir: dir, file: file, pinned: len(c.servers) > 0, named: make(chan []string, 1)}
	addrs := file.Servers
	if s.pinned {
		addrs = c.servers
	}
	if err := a.keepCertificate(ctx, dir, creds, addrs); err != nil {
		return nil, err
	}
	s.Client = client.New(addrs, func(addr string) (*grpc.ClientConn, error) {
		return transport.NewClient(addr, creds, pb.MemberRole_MEMBER_ROLE_SERVER)
	})
	learn, cancel := context.WithTimeout(ctx, learnTimeout)
	s.cancel = cancel
	if !s.pinned {
		go s.learn(learn)
	}
	return s, nil
}

func (s *session) learn(ctx context.Context) {
	status, err := s.GetStatus(ctx, &pb.GetStatusRequest{Local: true})
	if err != nil {
		return
	}
	var addrs []string
	for _, server := range status.Servers {
		addrs = append(addrs, server.Addr)
	}
	s.named <- addrs
}

// close saves what was learned and closes the connections.
func (s *session) close() {
	select {
	case named := <-s.named:
		if merged := mergeServers(s.file.Servers, named); !slices.Equal(merged, s.file.Servers) {
			s.file.Servers = merged
			_ = s.file.write(s.dir) // the old addresses serve as well
		}
	default:
	}
	s.cancel()
	s.Close()
}

// keepCertificate renews a person's certificate that is past half of its life. One that
// has expired is an error; one that cannot be renewed now is used as it is.
func (a *app) keepCertificate(ctx context.Context, dir string, creds *transport.Credentials, addrs []string) error {
	now := a.now()
	if now.After(creds.NotAfter()) {
		return fault.New(pb.ErrorKind_ERROR_KIND_DENIED, "your certificate of cluster %s expired on %s", creds.Identity().ClusterID,
			creds.NotAfter().In(a.location).Format(time.DateTime)).
			Hint("ask for a new token (llmos token create --role user) and log in again: llmos login TOKEN --server ADDR")
	}
	half := creds.NotBefore().Add(creds.NotAfter().Sub(creds.NotBefore()) / 2)
	if now.Before(half) || len(addrs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	csr, err := creds.CSR()
	if err != nil {
		return nil
	}
	for _, addr := range addrs {
		if renewAt(ctx, addr, creds, csr) == nil {
			_ = creds.Save(filepath.Join(dir, "tls")) // kept in memory; the next verb renews again
			return nil
		}
	}
	return nil
}

func renewAt(ctx context.Context, addr string, creds *transport.Credentials, csr []byte) error {
	conn, err := transport.NewClient(addr, creds, pb.MemberRole_MEMBER_ROLE_SERVER)
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := pb.NewJoinServiceClient(conn).Renew(ctx, &pb.RenewRequest{CsrDer: csr})
	if err != nil {
		return err
	}
	return creds.Replace(resp.CertificateDer)
}

// with opens a session, bounds the calls by the timeout, and explains what can go wrong.
func (a *app) with(cmd *cobra.Command, c *connection, do func(ctx context.Context, s *session) error) error {
	s, err := a.open(cmd.Context(), c)
	if err != nil {
		return err
	}
	defer s.close()
	ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
	defer cancel()
	if a.errTTY {
		hold := time.AfterFunc(patience, func() {
			a.note("%s\n", a.errTint().paint(faint, "still asking "+strings.Join(s.Servers(), ", ")+" ..."))
		})
		defer hold.Stop()
	}
	return reached(do(ctx, s), s.Servers())
}

// reached adds to an error of an unreachable cluster what to do about it.
func reached(err error, servers []string) error {
	if err == nil {
		return nil
	}
	f := fault.From(err)
	if exitCodes[f.Fault.Kind] == exitUnavailable && f.Fault.Hint == "" {
		f.Hint("is a server running at %s? Start one with `llmos dev`, or name another with --server", strings.Join(servers, ", "))
	}
	return f
}
