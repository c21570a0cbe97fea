package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	pb "llmos/proto/llmos/v1"
)

// gossipRetry is how often an agent that gossips with nobody looks for somebody.
const gossipRetry = 5 * time.Second

// watchDevices passes changes of the inventory on to the servers.
func (p *parts) watchDevices(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case inv, open := <-p.changes:
			if !open {
				return
			}
			p.keeper.inventory(inv)
		}
	}
}

// keepGossiping joins gossip through the known servers, again whenever this agent is
// alone, and drops gossip's events: the members are asked for when they are needed. It
// says goodbye at the end.
func (p *parts) keepGossiping(ctx context.Context) {
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			_ = p.gossip.Leave(gossipLeaveTime)
			return
		case _, open := <-p.gossip.Events():
			if !open {
				return
			}
		case <-again.C:
			if len(p.gossip.Members()) < 2 {
				if _, err := p.gossip.Join(p.sessions.book.candidates()); err != nil {
					p.cfg.Log.Debug("nobody to gossip with yet", "error", err)
				}
			}
			again.Reset(gossipRetry)
		}
	}
}

// renew asks any server for a new certificate.
func (p *parts) renew(ctx context.Context, csr []byte) ([]byte, error) {
	err := fmt.Errorf("no server is known")
	for _, addr := range p.sessions.book.candidates() {
		var der []byte
		if der, err = p.renewAt(ctx, addr, csr); err == nil {
			return der, nil
		}
	}
	return nil, fmt.Errorf("renew the certificate: %w", err)
}

func (p *parts) renewAt(ctx context.Context, addr string, csr []byte) ([]byte, error) {
	conn, err := p.dial(addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	resp, err := pb.NewJoinServiceClient(conn).Renew(ctx, &pb.RenewRequest{CsrDer: csr})
	if err != nil {
		return nil, err
	}
	return resp.GetCertificateDer(), nil
}

func (p *parts) saveCredentials() error {
	return p.home.creds.Save(filepath.Join(p.home.dir, tlsFolder))
}
