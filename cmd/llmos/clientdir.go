package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// clientFile is client.json: which cluster the folder's credentials are for.
type clientFile struct {
	ClusterID string   `json:"cluster_id"`
	Servers   []string `json:"servers"`       // host:port
	Dev       bool     `json:"dev,omitempty"` // written by llmos dev, which may replace it
}

const clientFileName = "client.json"

// clientDir gives the folder of a person's credentials: flag, $LLMOS_CLIENT_DIR,
// $XDG_CONFIG_HOME/llmos, ~/.config/llmos.
func (a *app) clientDir(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	if dir := a.env("LLMOS_CLIENT_DIR"); dir != "" {
		return dir, nil
	}
	if dir := a.env("XDG_CONFIG_HOME"); dir != "" {
		return filepath.Join(dir, "llmos"), nil
	}
	if home := a.env("HOME"); home != "" {
		return filepath.Join(home, ".config", "llmos"), nil
	}
	return "", invalid("there is no folder for the client's credentials: HOME is not set").Hint("set LLMOS_CLIENT_DIR")
}

// dataHome gives $XDG_DATA_HOME/llmos, or ~/.local/share/llmos.
func (a *app) dataHome() (string, error) {
	if dir := a.env("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "llmos"), nil
	}
	if home := a.env("HOME"); home != "" {
		return filepath.Join(home, ".local", "share", "llmos"), nil
	}
	return "", invalid("there is no folder for data: HOME is not set").Hint("give --data-dir")
}

// readClientFile reads client.json; a missing one is fs.ErrNotExist.
func readClientFile(dir string) (*clientFile, error) {
	path := filepath.Join(dir, clientFileName)
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var f clientFile
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, invalid("%s is not readable: %w", path, err).
			Hint("remove it and log in again: llmos login TOKEN --server ADDR")
	}
	return &f, nil
}

func (f *clientFile) write(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the client's folder: %w", err)
	}
	raw, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return transport.WriteFileAtomic(filepath.Join(dir, clientFileName), append(raw, '\n'), 0o600)
}

// openClientDir reads the cluster's addresses and the credentials of a folder.
func openClientDir(dir string) (*clientFile, *transport.Credentials, error) {
	f, err := readClientFile(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "no cluster is known: there is no %s in %s", clientFileName, dir).
			Hint("start one on this machine with `llmos dev`, or enter one with `llmos login TOKEN --server ADDR`")
	}
	if err != nil {
		return nil, nil, err
	}
	creds, err := transport.LoadCredentials(filepath.Join(dir, "tls"))
	if err != nil {
		return nil, nil, err
	}
	if id := creds.Identity().ClusterID; f.ClusterID != "" && id != f.ClusterID {
		return nil, nil, invalid("%s names cluster %s, and the certificate beside it cluster %s", filepath.Join(dir, clientFileName), f.ClusterID, id).
			Hint("log in again: llmos login TOKEN --server ADDR")
	}
	return f, creds, nil
}

// saveClient writes a folder whole: credentials first, so that client.json names a cluster
// only once they are there.
func saveClient(dir string, f *clientFile, creds *transport.Credentials) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the client's folder: %w", err)
	}
	if err := creds.Save(filepath.Join(dir, "tls")); err != nil {
		return fmt.Errorf("save the credentials: %w", err)
	}
	return f.write(dir)
}

// mergeServers gives the addresses that the cluster names now, those that were known and
// are still named first and in their order. Nothing named: those known.
func mergeServers(known, named []string) []string {
	if len(named) == 0 {
		return known
	}
	var out []string
	for _, addr := range known {
		if slices.Contains(named, addr) {
			out = append(out, addr)
		}
	}
	for _, addr := range named {
		if addr != "" && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}
