package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/grpc"

	"llmos/proto/client"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// Client speaks to the cluster with the administrator's credentials. The caller closes it.
func (c *Cluster) Client() (*client.Client, error) {
	return c.clientOf(c.addrs()...)
}

func (c *Cluster) addrs() []string {
	out := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		out[i] = s.Addr
	}
	return out
}

func (c *Cluster) clientOf(addrs ...string) (*client.Client, error) {
	creds, err := transport.LoadCredentials(filepath.Join(c.ClientDir(), "tls"))
	if err != nil {
		return nil, fmt.Errorf("load the administrator's credentials: %w", err)
	}
	dial := func(addr string) (*grpc.ClientConn, error) {
		return transport.NewClient(addr, creds, pb.MemberRole_MEMBER_ROLE_SERVER)
	}
	return client.New(addrs, dial), nil
}

// Status asks the cluster, by whichever server answers.
func (c *Cluster) Status(ctx context.Context) (*pb.ClusterStatus, error) {
	cl, err := c.Client()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return cl.GetStatus(ctx, &pb.GetStatusRequest{})
}

// LocalStatuses asks every running server for its own state.
func (c *Cluster) LocalStatuses(ctx context.Context) ([]*pb.ClusterStatus, error) {
	var out []*pb.ClusterStatus
	for _, s := range c.Servers {
		cl, err := c.clientOf(s.Addr)
		if err != nil {
			return nil, err
		}
		status, err := cl.GetStatus(ctx, &pb.GetStatusRequest{Local: true})
		cl.Close()
		if err != nil {
			return nil, fmt.Errorf("status of %s: %w", s.Name, err)
		}
		out = append(out, status)
	}
	return out, nil
}

// Leader is the server that leads now.
func (c *Cluster) Leader(ctx context.Context) (*Process, error) {
	status, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range c.Servers {
		if s.Addr == status.LeaderAddr {
			return s, nil
		}
	}
	return nil, fmt.Errorf("leader %q is none of the servers", status.LeaderAddr)
}

// Term is Raft's present term.
func (c *Cluster) Term(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	status, err := c.Status(ctx)
	if err != nil {
		return 0, err
	}
	return status.Term, nil
}

// WaitLeader returns once a leader answers.
func (c *Cluster) WaitLeader(ctx context.Context) error {
	return poll(ctx, func() error {
		if _, err := os.Stat(filepath.Join(c.ClientDir(), "client.json")); err != nil {
			return err
		}
		callCtx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		status, err := c.Status(callCtx)
		if err == nil && status.LeaderId == "" {
			return errors.New("there is no leader")
		}
		return err
	})
}

// WaitReady returns once every server votes and every agent is ready.
func (c *Cluster) WaitReady(ctx context.Context) error {
	return poll(ctx, func() error {
		callCtx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		status, err := c.Status(callCtx)
		if err != nil {
			return err
		}
		voters := 0
		for _, s := range status.Servers {
			if s.Voter && s.Reachable {
				voters++
			}
		}
		if voters < len(c.Servers) || int(status.NodesReady) < len(c.Agents) {
			return fmt.Errorf("%d of %d servers vote, %d of %d nodes are ready", voters, len(c.Servers), status.NodesReady, len(c.Agents))
		}
		return nil
	})
}

// TaskProcesses lists the live processes of tasks, by agent and process ID.
func (c *Cluster) TaskProcesses() []string {
	var out []string
	for _, a := range c.Agents {
		for _, pid := range a.Children() {
			b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
			if err == nil && hasTaskID(b) {
				out = append(out, fmt.Sprintf("%s:%d", a.Name, pid))
			}
		}
	}
	return out
}
