package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

const (
	tokenTTL    = time.Hour
	tokenTTLMax = 30 * 24 * time.Hour
	userIDBytes = 6 // random bytes of a user's ID
	loginTime   = 30 * time.Second
)

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "Make join tokens", Args: arguments(0, 0, "the verb create"),
		Example: "  llmos token create --role agent",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.createTokenCommand())
	return cmd
}

func (a *app) createTokenCommand() *cobra.Command {
	var c connection
	var f format
	var role string
	var ttl time.Duration
	var quiet bool
	cmd := &cobra.Command{
		Use: "create", Short: "Make a token that admits one member, once", Args: arguments(0, 0, "no arguments"),
		Long: "Make a join token. It admits one server, agent or user, once, and names the authority that the\n" +
			"newcomer must meet. The token goes to standard output, how to use it to standard error.",
		Example: "  llmos token create --role agent\n  llmos token create --role user --ttl 24h\n  TOKEN=$(llmos token create --role server --quiet)",
		RunE: func(cmd *cobra.Command, _ []string) error {
			member, err := transport.ParseRole(role)
			if err != nil {
				return invalid("--role: %w", err)
			}
			if ttl <= 0 || ttl > tokenTTLMax {
				return invalid("--ttl %v is out of range", ttl).Hint("use more than nothing and at most 720h")
			}
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				resp, err := s.CreateJoinToken(ctx, &pb.CreateJoinTokenRequest{Role: member, TtlMs: ttl.Milliseconds()})
				if err != nil {
					return err
				}
				return a.print(&f, resp, func() { a.showToken(resp, role, quiet, s.Servers()) })
			})
		},
	}
	c.flags(cmd)
	f.flag(cmd)
	cmd.Flags().StringVar(&role, "role", "agent", "`ROLE` of the newcomer: server, agent or user")
	cmd.Flags().DurationVar(&ttl, "ttl", tokenTTL, "how long (`TIME`) the token can be used")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "the token alone")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"server", "agent", "user"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) showToken(resp *pb.CreateJoinTokenResponse, role string, quiet bool, servers []string) {
	a.printf("%s\n", resp.Token)
	if quiet {
		return
	}
	server := "HOST:PORT"
	if len(servers) > 0 {
		server = servers[0]
	}
	use := map[string]string{
		"server": "llmos server --join " + server + " --token TOKEN",
		"agent":  "llmos agent --join " + server + " --token TOKEN",
		"user":   "llmos login TOKEN --server " + server,
	}[role]
	a.note("admits one %s until %s:\n  %s\n", role, time.UnixMilli(resp.ExpiresMs).In(a.location).Format(time.DateTime), use)
}

const loginLong = `Enter a cluster with a token of role user (llmos token create --role user) and keep the
credentials in the client folder. A folder that belongs to another cluster is left alone:
name another with LLMOS_CLIENT_DIR, or replace it with --force, which keeps a copy.`

func (a *app) loginCommand() *cobra.Command {
	var dirFlag string
	var servers []string
	var force bool
	cmd := &cobra.Command{
		Use: "login TOKEN", Short: "Enter a cluster with a token", Args: arguments(1, 1, "one token"), Long: loginLong,
		Example: "  llmos login TOKEN --server 10.0.0.1:7300",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(servers) == 0 {
				return invalid("llmos login needs the address of a server").Hint("llmos login TOKEN --server 10.0.0.1:7300")
			}
			dir, err := a.clientDir(dirFlag)
			if err != nil {
				return err
			}
			return a.login(cmd.Context(), dir, args[0], servers, force)
		},
	}
	cmd.Flags().StringVar(&dirFlag, "client-dir", "", "`FOLDER` to keep the credentials in (default ~/.config/llmos)")
	cmd.Flags().StringSliceVar(&servers, "server", nil, "server to enter by, `HOST:PORT`")
	cmd.Flags().BoolVar(&force, "force", false, "replace the credentials of another cluster, keeping a copy")
	envFlag(cmd.Flags(), "client-dir", "LLMOS_CLIENT_DIR")
	envFlag(cmd.Flags(), "server", "LLMOS_SERVER")
	return cmd
}

func (a *app) login(ctx context.Context, dir, text string, servers []string, force bool) error {
	token, err := transport.ParseToken(text)
	if err != nil {
		return err
	}
	// The folder is looked at before the token is spent.
	old, err := readClientFile(dir)
	replace := err == nil && old.ClusterID != token.ClusterID || err != nil && !errors.Is(err, fs.ErrNotExist)
	switch {
	case !replace || force:
	case err != nil:
		return err
	default:
		return fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "%s holds credentials of cluster %s, and the token is for cluster %s", dir, old.ClusterID, token.ClusterID).
			Hint("set LLMOS_CLIENT_DIR to another folder, or replace it with --force, which keeps a copy")
	}
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	joined, err := transport.Join(ctx, transport.JoinRequest{Addrs: servers, Token: token, Role: pb.MemberRole_MEMBER_ROLE_USER, MemberID: newUserID()})
	if err != nil {
		return err
	}
	if replace {
		kept, err := setAside(dir)
		if err != nil {
			return err
		}
		a.note("what %s held is kept in %s\n", dir, kept)
	}
	file := &clientFile{ClusterID: joined.ClusterID, Servers: mergeServers(servers, joined.ServerAddrs)}
	if err := saveClient(dir, file, joined.Credentials); err != nil {
		return err
	}
	a.printf("you are in cluster %s\n", joined.ClusterID)
	a.note("  llmos status\n  llmos run --wait -- echo hello\n")
	return nil
}

func newUserID() string {
	b := make([]byte, userIDBytes)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return "u-" + hex.EncodeToString(b)
}

// setAside renames a client folder to one beside it that is free and names its cluster.
func setAside(dir string) (kept string, err error) {
	id := "unknown"
	if f, err := readClientFile(dir); err == nil && f.ClusterID != "" && !strings.ContainsAny(f.ClusterID, "/.") {
		id = f.ClusterID
	}
	kept = filepath.Clean(dir) + "." + id
	for n := 2; ; n++ {
		if _, err := os.Lstat(kept); errors.Is(err, fs.ErrNotExist) {
			break
		}
		kept = fmt.Sprintf("%s.%s.%d", filepath.Clean(dir), id, n)
	}
	if err := os.Rename(dir, kept); err != nil {
		return "", invalid("the folder %s cannot be set aside: %w", dir, err)
	}
	return kept, nil
}
