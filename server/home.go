package server

import (
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/gofrs/flock"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/ca"
	"llmos/transport"
)

// The files of a server's data directory; identity.json is written last, so a directory
// that has one is complete but for Raft's state. That is made at the first start, and
// until then there is firstFile: a directory with neither has lost its log and its vote.
const (
	identityFile   = "identity.json"
	joiningFile    = "joining.json" // the identity of a join that has not ended yet
	lockFile       = "lock"
	tlsFolder      = "tls"
	gossipKeyFile  = "gossip.key"  // 32 bytes in hex
	caKeyFile      = "ca.key"      // PEM
	taskSecretFile = "task.secret" // 32 bytes in hex
	firstFile      = "first.start" // how the Raft state begins: firstAlone or firstJoined
	firstAlone     = "bootstrap"
	firstJoined    = "join"
	secretBytes    = 32
	homeFileMax    = 64 << 10 // bytes of any of these files
)

// homeIdentity is the content of identity.json.
type homeIdentity struct {
	ClusterID string `json:"cluster_id"`
	MemberID  string `json:"member_id"`
	Role      string `json:"role"`
}

// home is an open data directory: locked, complete and read.
type home struct {
	dir        string
	lock       *flock.Flock
	id         homeIdentity
	creds      *transport.Credentials
	ca         *ca.CA
	gossipKey  []byte
	taskSecret []byte
}

// lockHome makes the directory when absent and locks it.
func lockHome(dir string) (*flock.Flock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, homeFault(dir, err)
	}
	path := filepath.Join(dir, lockFile)
	lock := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, homeFault(dir, err)
	}
	if !ok {
		pid, _ := os.ReadFile(path)
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "another llmos is running on data directory %s (pid %s)", dir, strings.TrimSpace(string(pid))).
			Hint("stop it first, or give this one another --data-dir")
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return nil, errors.Join(homeFault(dir, err), lock.Unlock())
	}
	return lock, nil
}

// homeFault says why a data directory cannot be used.
func homeFault(dir string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "data directory %s is not writable: %w", dir, err).
			Hint("run llmos as the owner of %s, or choose another --data-dir", dir)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "data directory %s is not a directory: %w", dir, err).Hint("choose another --data-dir")
	}
	return diskFault(dir, "preparing the directory", err)
}

// unreadable says why a file of a complete directory cannot be read.
func unreadable(dir, name string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return homeFault(dir, err)
	}
	return corruptFault(dir, name, err)
}

// readIdentity reads identity.json; nil when the directory has none. A directory with
// other content than ours is refused.
func readIdentity(dir string) (*homeIdentity, error) {
	var id homeIdentity
	err := readJSON(filepath.Join(dir, identityFile), &id)
	if errors.Is(err, fs.ErrNotExist) {
		for _, name := range []string{"raft", "journal", "tasks"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "data directory %s has a folder %s but no %s", dir, name, identityFile).
					Hint("restore %s from a backup, or choose an empty --data-dir", identityFile)
			}
		}
		return nil, nil
	}
	if err != nil {
		return nil, corruptFault(dir, identityFile, err)
	}
	want := transport.Identity{ClusterID: id.ClusterID, Role: pb.MemberRole_MEMBER_ROLE_SERVER, MemberID: id.MemberID}
	if id.Role != transport.RoleName(want.Role) {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "data directory %s belongs to %s %s of cluster %s, not to a server", dir, id.Role, id.MemberID, id.ClusterID).
			Hint("give the server a --data-dir of its own")
	}
	if err := want.Validate(); err != nil {
		return nil, corruptFault(dir, identityFile, err)
	}
	return &id, nil
}

// loadHome reads what a complete directory holds.
func (h *home) load() (err error) {
	folder := filepath.Join(h.dir, tlsFolder)
	if h.creds, err = transport.LoadCredentials(folder); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return corruptFault(h.dir, tlsFolder, err)
		}
		return fmt.Errorf("read the certificate of data directory %s: %w", h.dir, err)
	}
	want := transport.Identity{ClusterID: h.id.ClusterID, Role: pb.MemberRole_MEMBER_ROLE_SERVER, MemberID: h.id.MemberID}
	if got := h.creds.Identity(); got != want {
		return fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "data directory %s is of %s, but its certificate is of %s", h.dir, want, got).
			Hint("restore %s and %s of one server", identityFile, tlsFolder)
	}
	key, err := readBounded(filepath.Join(h.dir, caKeyFile))
	if err != nil {
		return unreadable(h.dir, caKeyFile, err)
	}
	block, _ := pem.Decode(key)
	if block == nil {
		return corruptFault(h.dir, caKeyFile, errors.New("it is not PEM"))
	}
	if h.ca, err = ca.Load(block.Bytes, h.creds.CA().Raw); err != nil {
		return corruptFault(h.dir, caKeyFile, err)
	}
	if h.gossipKey, err = readSecret(h.dir, gossipKeyFile); err != nil {
		return err
	}
	h.taskSecret, err = readSecret(h.dir, taskSecretFile)
	return err
}

// save writes a new directory, whose Raft state begins as first says; identity.json last.
func (h *home) save(first string) error {
	keyDER, err := h.ca.KeyDER()
	if err != nil {
		return fmt.Errorf("encode the authority's key: %w", err)
	}
	if err := h.creds.Save(filepath.Join(h.dir, tlsFolder)); err != nil {
		return homeFault(h.dir, err)
	}
	id, err := json.Marshal(h.id)
	if err != nil {
		return fmt.Errorf("encode the identity: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{
		{caKeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})},
		{gossipKeyFile, []byte(hex.EncodeToString(h.gossipKey) + "\n")},
		{taskSecretFile, []byte(hex.EncodeToString(h.taskSecret) + "\n")},
		{firstFile, []byte(first + "\n")},
		{identityFile, append(id, '\n')},
	} {
		if err := transport.WriteFileAtomic(filepath.Join(h.dir, f.name), f.data, 0o600); err != nil {
			return homeFault(h.dir, err)
		}
	}
	if err := os.Remove(filepath.Join(h.dir, joiningFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return homeFault(h.dir, err)
	}
	return nil
}

// first says how the Raft state of a directory begins; empty when it has begun.
func (h *home) first() (string, error) {
	text, err := readBounded(filepath.Join(h.dir, firstFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", homeFault(h.dir, err)
	}
	first := strings.TrimSpace(string(text))
	if first != firstAlone && first != firstJoined {
		return "", corruptFault(h.dir, firstFile, fmt.Errorf("it says %.20q", first))
	}
	return first, nil
}

// begun notes that the Raft state is made and durable.
func (h *home) begun() error {
	if err := os.Remove(filepath.Join(h.dir, firstFile)); err != nil {
		return homeFault(h.dir, err)
	}
	if err := syncFolder(h.dir); err != nil {
		return homeFault(h.dir, err)
	}
	return nil
}

// saveCredentials keeps a renewed certificate.
func (h *home) saveCredentials() error { return h.creds.Save(filepath.Join(h.dir, tlsFolder)) }

// Close gives the directory free.
func (h *home) Close() error { return h.lock.Unlock() }

func readSecret(dir, name string) ([]byte, error) {
	text, err := readBounded(filepath.Join(dir, name))
	if err != nil {
		return nil, unreadable(dir, name, err)
	}
	secret, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(secret) != secretBytes {
		return nil, corruptFault(dir, name, fmt.Errorf("it does not hold %d bytes in hex", secretBytes))
	}
	return secret, nil
}

func readJSON(path string, into any) error {
	data, err := readBounded(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > homeFileMax {
		return nil, fmt.Errorf("%s has %d bytes, at most %d", path, info.Size(), homeFileMax)
	}
	return os.ReadFile(path)
}
