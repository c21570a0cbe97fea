package server

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

func homeConfig(dir string) Config {
	cfg := DefaultConfig()
	cfg.DataDir, cfg.Listen = dir, "127.0.0.1:0"
	return cfg
}

func bootstrapped(t *testing.T) Config {
	t.Helper()
	cfg := homeConfig(filepath.Join(t.TempDir(), "data"))
	cfg.Bootstrap = true
	h, err := openHome(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func write(t *testing.T, cfg Config, name, text string) {
	t.Helper()
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.DataDir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWrongDataDirectories(t *testing.T) {
	for _, row := range []struct {
		name    string
		prepare func(t *testing.T) Config
		says    string
	}{
		{"empty without a word", func(t *testing.T) Config { return homeConfig(t.TempDir()) }, "--bootstrap"},
		{"an agent's", func(t *testing.T) Config {
			cfg := homeConfig(t.TempDir())
			write(t, cfg, identityFile, `{"cluster_id":"c-1","member_id":"n-1","role":"agent"}`)
			return cfg
		}, "belongs to agent n-1 of cluster c-1"},
		{"broken identity", func(t *testing.T) Config {
			cfg := homeConfig(t.TempDir())
			write(t, cfg, identityFile, `{"cluster_id":`)
			return cfg
		}, "identity.json"},
		{"raft without an identity", func(t *testing.T) Config {
			cfg := homeConfig(t.TempDir())
			cfg.Bootstrap = true
			if err := os.Mkdir(filepath.Join(cfg.DataDir, "raft"), 0o700); err != nil {
				t.Fatal(err)
			}
			return cfg
		}, "no identity.json"},
		{"another cluster's", func(t *testing.T) Config {
			cfg, other := bootstrapped(t), bootstrapped(t)
			h, err := openHome(context.Background(), other)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			token, _, err := h.ca.NewToken(pb.MemberRole_MEMBER_ROLE_SERVER, 0, h.creds.NotBefore())
			if err != nil {
				t.Fatal(err)
			}
			cfg.Bootstrap, cfg.Token = false, token.String()
			return cfg
		}, "and the token to cluster"},
		{"a file", func(t *testing.T) Config {
			path := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return homeConfig(path)
		}, "is not a directory"},
		{"a lost secret", func(t *testing.T) Config {
			cfg := bootstrapped(t)
			write(t, cfg, taskSecretFile, "short")
			return cfg
		}, "task.secret"},
		{"another's certificate", func(t *testing.T) Config {
			cfg, other := bootstrapped(t), bootstrapped(t)
			id, err := os.ReadFile(filepath.Join(other.DataDir, identityFile))
			if err != nil {
				t.Fatal(err)
			}
			write(t, cfg, identityFile, string(id))
			return cfg
		}, "its certificate is of"},
	} {
		t.Run(row.name, func(t *testing.T) {
			h, err := openHome(context.Background(), row.prepare(t))
			if err == nil {
				h.Close()
				t.Fatal("it was opened")
			}
			f := fault.From(err)
			if !strings.Contains(f.Error(), row.says) || f.Fault.Hint == "" || strings.Contains(f.Error(), "\n") {
				t.Errorf("told as %q", f.Error())
			}
		})
	}
}

func TestUnwritableDirectory(t *testing.T) {
	if os.Getuid() == 0 {
		// The superuser may write anywhere; the fault's words are checked without a directory.
		f := fault.From(homeFault("/data", os.ErrPermission))
		if !strings.Contains(f.Error(), "/data is not writable") || f.Fault.Hint == "" {
			t.Errorf("told as %q", f.Error())
		}
		return
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := openHome(context.Background(), homeConfig(dir)); err == nil || !strings.Contains(err.Error(), "not writable") {
		t.Errorf("told as %v", err)
	}
}

func TestOneServerAtATime(t *testing.T) {
	cfg := bootstrapped(t)
	h, err := openHome(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openHome(context.Background(), cfg); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_CONFLICT || !strings.Contains(err.Error(), "another llmos is running on data directory") {
		t.Errorf("the second: %v", err)
	}
	first := h.id
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h, err = openHome(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if h.id != first {
		t.Errorf("bootstrapping again made %+v of %+v", h.id, first)
	}
}

func TestClientDirectory(t *testing.T) {
	cfg, other := bootstrapped(t), bootstrapped(t)
	dir := filepath.Join(t.TempDir(), "client")
	h, err := openHome(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for _, addr := range []string{"127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:2"} {
		if err := h.writeClient(dir, addr); err != nil {
			t.Fatal(err)
		}
	}
	var have clientConfig
	if err := readJSON(filepath.Join(dir, clientFile), &have); err != nil {
		t.Fatal(err)
	}
	if have.ClusterID != h.id.ClusterID || strings.Join(have.Servers, " ") != "127.0.0.1:2 127.0.0.1:1" {
		t.Errorf("client file %+v", have)
	}
	for name, secret := range map[string]bool{"tls/node.key": true, "client.json": true} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || (secret && info.Mode().Perm()&0o077 != 0) {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	stranger, err := openHome(context.Background(), other)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if err := stranger.writeClient(dir, "127.0.0.1:3"); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_CONFLICT {
		t.Errorf("another cluster's credentials were overwritten: %v", err)
	}
}

func TestConfigFaults(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"data-dir": func(c *Config) { c.DataDir = "" },
		"listen":   func(c *Config) { c.Listen = "7300" },
		"join":     func(c *Config) { c.Join = []string{"host"} },
		"timing":   func(c *Config) { c.Timing.LeaderLease = c.Timing.HeartbeatTimeout * 2 },
		"":         func(c *Config) { c.Bootstrap, c.Token = true, "t" },
	} {
		cfg := homeConfig(t.TempDir())
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		if f := fault.From(cfg.Validate()); f == nil || f.Fault.Field != field {
			t.Errorf("field %q: %v", field, f)
		}
	}
	for _, timing := range []Timing{LAN(), Fast()} {
		if err := timing.validate(); err != nil {
			t.Error(err)
		}
	}
}
