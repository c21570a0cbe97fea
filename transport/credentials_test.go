package transport_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

func TestCredentialsSaveAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	creds := member(t, newCA(t, cluster), agent, "n-1")
	for range 2 { // a second save replaces the first
		if err := creds.Save(dir); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Fatalf("the folder has %v (%v), want three files", entries, err)
	}
	info, err := os.Stat(filepath.Join(dir, transport.KeyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the key's mode is %v (%v)", info.Mode(), err)
	}
	got, err := transport.LoadCredentials(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.Identity() != creds.Identity() || !got.NotAfter().Equal(creds.NotAfter()) || !got.CA().Equal(creds.CA()) {
		t.Fatalf("loaded %v", got.Identity())
	}
}

func TestLoadCredentialsRefuses(t *testing.T) {
	if _, err := transport.LoadCredentials(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("an empty folder gives %v", err)
	}
	authority := newCA(t, cluster)
	other := t.TempDir()
	if err := member(t, newCA(t, cluster), agent, "n-1").Save(other); err != nil {
		t.Fatal(err)
	}
	foreign := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(other, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		name, file string
		content    []byte
		want       string
	}{
		{"cut certificate", transport.CertificateFile, foreign(transport.CertificateFile)[:100], "no PEM block"},
		{"key for certificate", transport.CertificateFile, foreign(transport.KeyFile), "no PEM block of type CERTIFICATE"},
		{"foreign key", transport.KeyFile, foreign(transport.KeyFile), "does not belong to the private key"},
		{"foreign authority", transport.CAFile, foreign(transport.CAFile), "was not issued by its authority"},
		{"two authorities", transport.CAFile, append(foreign(transport.CAFile), foreign(transport.CAFile)...), "more than one"},
		{"huge", transport.KeyFile, make([]byte, 65<<10), "at most"},
	} {
		dir := t.TempDir()
		if err := member(t, authority, agent, "n-1").Save(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, c.file), c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := transport.LoadCredentials(dir)
		if fault.Kind(err) != pb.ErrorKind_ERROR_KIND_INVALID || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestReplaceKeepsKeyAndIdentity(t *testing.T) {
	authority := newCA(t, cluster)
	key, err := transport.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	creds, err := transport.NewCredentials(issue(t, authority, key, agent, "n-1", now, time.Hour), key, authority.CertificateDER())
	if err != nil {
		t.Fatal(err)
	}
	otherKey, err := transport.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{
		"other key":       issue(t, authority, otherKey, agent, "n-1", now, time.Hour),
		"other member":    issue(t, authority, key, agent, "n-2", now, time.Hour),
		"other role":      issue(t, authority, key, server, "n-1", now, time.Hour),
		"other authority": issue(t, newCA(t, cluster), key, agent, "n-1", now, time.Hour),
		"garbage":         []byte("garbage"),
	} {
		if err := creds.Replace(der); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := creds.Replace(issue(t, authority, key, agent, "n-1", now, 2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if left := creds.NotAfter().Sub(now); left < 90*time.Minute {
		t.Fatalf("the new certificate is not in use: %s left", left)
	}
}
