package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/gofrs/flock"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// The files of an agent's data directory; identity.json is written last, so a directory
// that has one is complete.
const (
	identityFile  = "identity.json"
	joiningFile   = "joining.json" // the identity of a join that has not ended yet
	lockFile      = "lock"
	tlsFolder     = "tls"
	gossipKeyFile = "gossip.key"   // 32 bytes in hex
	serversFile   = "servers.json" // addresses of servers, newest knowledge
	shimLogFile   = "shims.log"    // what shims say when they fail
	journalFolder = "journal"
	tasksFolder   = "tasks"

	checkpointsFolder = "checkpoints"
	homeFileMax       = 64 << 10 // bytes of any of these files
)

// homeIdentity is the content of identity.json.
type homeIdentity struct {
	ClusterID string `json:"cluster_id"`
	MemberID  string `json:"member_id"`
	Role      string `json:"role"`
}

// home is a locked data directory. creds and gossipKey are there once it has joined.
type home struct {
	dir       string
	lock      *flock.Flock
	id        homeIdentity
	joined    bool
	creds     *transport.Credentials
	gossipKey []byte
}

// openHome locks the directory, making it when absent, and reads what it holds. A
// directory of something else than this agent's cluster is refused.
func openHome(cfg Config) (*home, error) {
	// Task users pass through the directory; what is secret lies in files and folders of mode 0600 and 0700.
	if err := os.MkdirAll(cfg.DataDir, 0o711); err != nil {
		return nil, homeFault(cfg.DataDir, err)
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return nil, homeFault(cfg.DataDir, err)
	}
	h := &home{dir: dir}
	if err := h.takeLock(); err != nil {
		return nil, err
	}
	if err := h.read(cfg); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

func (h *home) takeLock() error {
	path := filepath.Join(h.dir, lockFile)
	lock := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	if err != nil {
		return homeFault(h.dir, err)
	}
	if !ok {
		pid, _ := os.ReadFile(path)
		return fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "another llmos is running on data directory %s (pid %s)", h.dir, strings.TrimSpace(string(pid))).
			Hint("stop it first, or give this one another --data-dir")
	}
	h.lock = lock
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return errors.Join(homeFault(h.dir, err), h.close())
	}
	return nil
}

func (h *home) close() error {
	if h.lock == nil {
		return nil
	}
	return h.lock.Unlock()
}

// homeFault says why a data directory cannot be used.
func homeFault(dir string, err error) error {
	kind, hint := pb.ErrorKind_ERROR_KIND_INVALID, "choose another --data-dir"
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		hint = "run llmos as the owner of the directory, or choose another --data-dir"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		kind, hint = pb.ErrorKind_ERROR_KIND_LIMIT, "free some space on its file system, then start again"
	}
	return fault.New(kind, "data directory %s cannot be used: %w", dir, err).Hint("%s", hint)
}

// read loads the identity and what belongs to it, when there is one.
func (h *home) read(cfg Config) error {
	found, err := readJSON(filepath.Join(h.dir, identityFile), &h.id)
	if err != nil {
		return corruptFault(h.dir, identityFile, err)
	}
	if !found {
		return h.checkEmpty()
	}
	want := transport.Identity{ClusterID: h.id.ClusterID, Role: pb.MemberRole_MEMBER_ROLE_AGENT, MemberID: h.id.MemberID}
	if h.id.Role != transport.RoleName(want.Role) {
		return fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "data directory %s belongs to %s %s of cluster %s, not to an agent", h.dir, h.id.Role, h.id.MemberID, h.id.ClusterID).
			Hint("give the agent a --data-dir of its own")
	}
	if err := want.Validate(); err != nil {
		return corruptFault(h.dir, identityFile, err)
	}
	if cfg.Token != "" {
		if token, err := transport.ParseToken(cfg.Token); err == nil && token.ClusterID != h.id.ClusterID {
			return fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "data directory %s belongs to cluster %s, and the token admits to cluster %s", h.dir, h.id.ClusterID, token.ClusterID).
				Hint("give this agent an empty --data-dir to join the other cluster")
		}
	}
	if h.creds, err = transport.LoadCredentials(filepath.Join(h.dir, tlsFolder)); err != nil {
		return fmt.Errorf("read the certificate of data directory %s: %w", h.dir, err)
	}
	if got := h.creds.Identity(); got != want {
		return fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "data directory %s is of %s, but its certificate is of %s", h.dir, want, got).
			Hint("restore %s and %s of one agent", identityFile, tlsFolder)
	}
	text, err := readBounded(filepath.Join(h.dir, gossipKeyFile))
	if err == nil {
		h.gossipKey, err = hex.DecodeString(strings.TrimSpace(string(text)))
	}
	if err != nil {
		return corruptFault(h.dir, gossipKeyFile, err)
	}
	h.joined = true
	return h.makeFolders()
}

// checkEmpty refuses a directory whose identity was lost: its tasks would be forgotten.
func (h *home) checkEmpty() error {
	for _, name := range []string{"raft", journalFolder, tasksFolder} {
		if _, err := os.Stat(filepath.Join(h.dir, name)); err == nil {
			return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "data directory %s has a folder %s but no %s", h.dir, name, identityFile).
				Hint("restore %s from a backup, or choose an empty --data-dir", identityFile)
		}
	}
	return nil
}

func (h *home) makeFolders() error {
	for name, mode := range map[string]fs.FileMode{journalFolder: 0o700, tasksFolder: 0o711, checkpointsFolder: 0o700} {
		if err := os.MkdirAll(filepath.Join(h.dir, name), mode); err != nil {
			return homeFault(h.dir, err)
		}
	}
	return nil
}

func corruptFault(dir, name string, err error) error {
	return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%s in data directory %s cannot be read: %w", name, dir, err).
		Hint("restore it from a backup, or choose an empty --data-dir and join again")
}

// join is admitted to the cluster by the token. The member ID is drawn once and kept, so
// that a join that was cut off is repeated as the same member.
func (h *home) join(ctx context.Context, cfg Config) error {
	if cfg.Token == "" {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "data directory %s belongs to no cluster yet and no join token is given", h.dir).
			Hint("make one with `llmos token create --role agent` and give it with --token")
	}
	token, err := transport.ParseToken(cfg.Token)
	if err != nil {
		return err
	}
	if err := transport.Probe(cfg.Listen); err != nil { // before the token is used up
		return err
	}
	path := filepath.Join(h.dir, joiningFile)
	var id homeIdentity
	found, err := readJSON(path, &id)
	if err != nil || !found || id.ClusterID != token.ClusterID {
		random := make([]byte, 6)
		if _, err := rand.Read(random); err != nil {
			return fmt.Errorf("draw an ID: %w", err)
		}
		id = homeIdentity{ClusterID: token.ClusterID, MemberID: "n-" + hex.EncodeToString(random),
			Role: transport.RoleName(pb.MemberRole_MEMBER_ROLE_AGENT)}
		if err := h.writeJSON(joiningFile, id); err != nil {
			return err
		}
	}
	joined, err := transport.Join(ctx, transport.JoinRequest{Addrs: cfg.Join, Token: token,
		Role: pb.MemberRole_MEMBER_ROLE_AGENT, MemberID: id.MemberID, Hosts: cfg.hosts()})
	if err != nil {
		return err
	}
	return h.keep(id, joined)
}

// keep writes what the cluster gave, the identity last.
func (h *home) keep(id homeIdentity, joined *transport.Joined) error {
	if err := joined.Credentials.Save(filepath.Join(h.dir, tlsFolder)); err != nil {
		return homeFault(h.dir, err)
	}
	key := []byte(hex.EncodeToString(joined.GossipKey) + "\n")
	if err := transport.WriteFileAtomic(filepath.Join(h.dir, gossipKeyFile), key, 0o600); err != nil {
		return homeFault(h.dir, err)
	}
	if err := h.writeJSON(serversFile, joined.ServerAddrs); err != nil {
		return err
	}
	if err := h.writeJSON(identityFile, id); err != nil {
		return err
	}
	_ = os.Remove(filepath.Join(h.dir, joiningFile))
	h.id, h.creds, h.gossipKey, h.joined = id, joined.Credentials, joined.GossipKey, true
	return h.makeFolders()
}

func (h *home) writeJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := transport.WriteFileAtomic(filepath.Join(h.dir, name), append(data, '\n'), 0o600); err != nil {
		return homeFault(h.dir, err)
	}
	return nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, homeFileMax+1))
	if err == nil && len(data) > homeFileMax {
		err = fmt.Errorf("it is longer than %d bytes", homeFileMax)
	}
	return data, err
}

func readJSON(path string, v any) (found bool, err error) {
	data, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, json.Unmarshal(data, v)
}
