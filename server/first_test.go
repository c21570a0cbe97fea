package server

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"llmos/proto/fault"
)

// TestLostRaftStateIsRefused takes Raft's folder away from a member. Without its log and
// its vote it must not start as itself: it could vote twice in a term, and with --bootstrap
// left in its unit it would make a second cluster of the same name.
func TestLostRaftStateIsRefused(t *testing.T) {
	s := alone(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := s.cfg
	folder := filepath.Join(cfg.DataDir, "raft")
	for _, lost := range []string{filepath.Join(folder, raftFile), folder} {
		if err := os.RemoveAll(lost); err != nil {
			t.Fatal(err)
		}
		for _, cfg.Bootstrap = range []bool{true, false} {
			again, err := New(context.Background(), cfg)
			if err == nil {
				t.Fatalf("it started without its Raft state: %v", again.Close())
			}
			if f := fault.From(err); !strings.Contains(f.Error(), "Raft state") || f.Fault.Hint == "" {
				t.Errorf("told as %q", f.Error())
			}
		}
	}
}

// TestFirstStartIsCutOff ends a first start between the two writes of Raft's first
// configuration, and before them. The next start, with --bootstrap or without, finishes it.
func TestFirstStartIsCutOff(t *testing.T) {
	for name, leave := range map[string]func(dir string) error{
		"nothing":  func(string) error { return nil },
		"a folder": func(dir string) error { return os.Mkdir(dir, 0o700) },
		"a term without an entry": func(dir string) error {
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			store, err := raftboltdb.NewBoltStore(filepath.Join(dir, raftFile))
			if err != nil {
				return err
			}
			if err := store.SetUint64([]byte("CurrentTerm"), 1); err != nil {
				return err
			}
			return store.Close()
		},
	} {
		for _, again := range []bool{true, false} {
			cfg := bootstrapped(t)
			cfg.Timing, cfg.Bootstrap = Fast(), again
			if err := leave(filepath.Join(cfg.DataDir, "raft")); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			s := begin(t, cfg)
			if _, err := os.Stat(filepath.Join(cfg.DataDir, firstFile)); err == nil {
				t.Errorf("%s: %s is still there", name, firstFile)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestMissingFilesAreNamed(t *testing.T) {
	for _, name := range []string{caKeyFile, gossipKeyFile, taskSecretFile, tlsFolder} {
		cfg := bootstrapped(t)
		if err := os.RemoveAll(filepath.Join(cfg.DataDir, name)); err != nil {
			t.Fatal(err)
		}
		_, err := openHome(context.Background(), cfg)
		f := fault.From(err)
		if err == nil || !strings.Contains(f.Error(), name) || !strings.Contains(f.Fault.Hint, "join again") {
			t.Errorf("without %s: %q, hint %q", name, f.Error(), f.Fault.Hint)
		}
	}
}
