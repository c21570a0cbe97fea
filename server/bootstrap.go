package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/ca"
	"llmos/transport"
)

const (
	idBytes      = 6 // random bytes of a cluster, server or user ID
	requestBytes = 16
	clientFile   = "client.json"
)

// randomID draws an ID: the prefix and n random bytes in hex.
func randomID(prefix string, n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return prefix + hex.EncodeToString(b)
}

// openHome locks and opens the data directory: one that holds a server is read, an empty
// one becomes the first server of a new cluster or a further server by a token.
func openHome(ctx context.Context, cfg Config) (h *home, err error) {
	lock, err := lockHome(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	h = &home{dir: cfg.DataDir, lock: lock}
	defer func() {
		if err != nil {
			_ = lock.Unlock()
		}
	}()
	id, err := readIdentity(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	switch {
	case id != nil:
		h.id = *id
		if err := sameCluster(cfg, h.id); err != nil {
			return nil, err
		}
		return h, h.load()
	case cfg.Bootstrap || cfg.Token != "":
		// A cluster made, or a token used up, for a port that is taken would be half a start.
		if err := transport.Probe(cfg.Listen); err != nil {
			return nil, err
		}
		if cfg.Bootstrap {
			return h, h.bootstrap(cfg)
		}
		return h, h.join(ctx, cfg)
	}
	return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "data directory %s is empty, and neither --bootstrap nor a token was given", cfg.DataDir).
		Hint("start the first server of a cluster with --bootstrap, and the others with --join HOST:PORT --token TOKEN")
}

// sameCluster refuses a token of another cluster than the directory's.
func sameCluster(cfg Config, id homeIdentity) error {
	if cfg.Token == "" {
		return nil
	}
	token, err := transport.ParseToken(cfg.Token)
	if err != nil {
		return err
	}
	if token.ClusterID != id.ClusterID {
		return fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "data directory %s belongs to cluster %s, and the token to cluster %s", cfg.DataDir, id.ClusterID, token.ClusterID).
			Hint("leave the token away to start the server of cluster %s, or give another --data-dir", id.ClusterID)
	}
	return nil
}

// bootstrap makes a new cluster: its ID, authority, secrets and this server's certificate.
func (h *home) bootstrap(cfg Config) (err error) {
	now := time.Now()
	h.id = homeIdentity{ClusterID: randomID("c-", idBytes), MemberID: randomID("s-", idBytes),
		Role: transport.RoleName(pb.MemberRole_MEMBER_ROLE_SERVER)}
	if h.ca, err = ca.New(h.id.ClusterID, now); err != nil {
		return fmt.Errorf("make the cluster's authority: %w", err)
	}
	h.gossipKey, h.taskSecret = make([]byte, secretBytes), make([]byte, secretBytes)
	_, _ = rand.Read(h.gossipKey)
	_, _ = rand.Read(h.taskSecret)
	own := transport.Identity{ClusterID: h.id.ClusterID, Role: pb.MemberRole_MEMBER_ROLE_SERVER, MemberID: h.id.MemberID}
	if h.creds, err = issueNew(h.ca, own, cfg.hosts(), transport.NodeCertificateLife, now); err != nil {
		return err
	}
	cfg.Log.Info("a new cluster is made", "cluster", h.id.ClusterID, "server", h.id.MemberID, "dir", h.dir)
	return h.save(firstAlone)
}

// issueNew makes a key and a certificate for it.
func issueNew(authority *ca.CA, id transport.Identity, hosts []string, life time.Duration, now time.Time) (*transport.Credentials, error) {
	key, err := transport.NewKey()
	if err != nil {
		return nil, fmt.Errorf("make a private key: %w", err)
	}
	csr, err := transport.NewCSR(key)
	if err != nil {
		return nil, err
	}
	der, err := authority.Issue(csr, id, hosts, life, now)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate for %s: %w", id, err)
	}
	return transport.NewCredentials(der, key, authority.CertificateDER())
}

// join asks the servers of cfg.Join to admit this one. The ID is kept before it is used,
// so that a join that is cut off can be repeated with the same token.
func (h *home) join(ctx context.Context, cfg Config) error {
	token, err := transport.ParseToken(cfg.Token)
	if err != nil {
		return err
	}
	role := pb.MemberRole_MEMBER_ROLE_SERVER
	path := filepath.Join(h.dir, joiningFile)
	h.id = homeIdentity{}
	if err := readJSON(path, &h.id); err != nil || h.id.ClusterID != token.ClusterID {
		h.id = homeIdentity{ClusterID: token.ClusterID, MemberID: randomID("s-", idBytes), Role: transport.RoleName(role)}
		text, err := json.Marshal(h.id)
		if err != nil {
			return fmt.Errorf("encode the identity: %w", err)
		}
		if err := transport.WriteFileAtomic(path, text, 0o600); err != nil {
			return homeFault(h.dir, err)
		}
	}
	joined, err := transport.Join(ctx, transport.JoinRequest{Addrs: cfg.Join, Token: token, Role: role, MemberID: h.id.MemberID, Hosts: cfg.hosts()})
	if err != nil {
		return err
	}
	h.creds, h.gossipKey, h.taskSecret = joined.Credentials, joined.GossipKey, joined.TaskSecret
	if h.ca, err = ca.Load(joined.CAKeyDER, joined.Credentials.CA().Raw); err != nil {
		return fmt.Errorf("read the authority that the cluster sent: %w", err)
	}
	cfg.Log.Info("joined the cluster", "cluster", h.id.ClusterID, "server", h.id.MemberID)
	return h.save(firstJoined)
}

// clientConfig is the content of client.json.
type clientConfig struct {
	ClusterID string   `json:"cluster_id"`
	Servers   []string `json:"servers"`
	Dev       bool     `json:"dev,omitempty"` // kept as the command line wrote it
}

// writeClient leaves the administrator's credentials in dir, unless it has some of this
// cluster; then it only learns the address. Whoever can run this has the authority's key,
// so it grants nothing new.
func (h *home) writeClient(dir, addr string) error {
	path := filepath.Join(dir, clientFile)
	var have clientConfig
	err := readJSON(path, &have)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := h.issueClient(dir); err != nil {
			return err
		}
		have = clientConfig{ClusterID: h.id.ClusterID}
	case err != nil:
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "client file %s cannot be read: %w", path, err).Hint("move it away and start the server again")
	case have.ClusterID != h.id.ClusterID:
		return fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "client directory %s holds the credentials of cluster %s, and this is cluster %s", dir, have.ClusterID, h.id.ClusterID).
			Hint("set LLMOS_CLIENT_DIR to another directory, or move %s away if that cluster is gone", dir)
	case slices.Contains(have.Servers, addr):
		return nil
	}
	have.Servers = append([]string{addr}, have.Servers...)
	text, err := json.MarshalIndent(have, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return transport.WriteFileAtomic(path, append(text, '\n'), 0o600)
}

func (h *home) issueClient(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "client directory %s cannot be made: %w", dir, err).Hint("set LLMOS_CLIENT_DIR to a directory you own")
	}
	admin := transport.Identity{ClusterID: h.id.ClusterID, Role: pb.MemberRole_MEMBER_ROLE_USER, MemberID: randomID("admin-", idBytes)}
	creds, err := issueNew(h.ca, admin, nil, transport.UserCertificateLife, time.Now())
	if err != nil {
		return err
	}
	return creds.Save(filepath.Join(dir, tlsFolder))
}
