package transport

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// identityPartMax bounds a cluster or member ID, in bytes.
const identityPartMax = 64

// Identity is who a certificate speaks for. It travels as the URI
// spiffe://<cluster>/<server|agent|user>/<member>.
type Identity struct {
	ClusterID string
	Role      pb.MemberRole
	MemberID  string
}

var roleNames = map[pb.MemberRole]string{
	pb.MemberRole_MEMBER_ROLE_SERVER: "server",
	pb.MemberRole_MEMBER_ROLE_AGENT:  "agent",
	pb.MemberRole_MEMBER_ROLE_USER:   "user",
}

// RoleName gives the word for a role: server, agent, user, or "unspecified".
func RoleName(role pb.MemberRole) string {
	if name, ok := roleNames[role]; ok {
		return name
	}
	return "unspecified"
}

// ParseRole is the inverse of RoleName; an unknown word gives UNSPECIFIED and an error.
func ParseRole(name string) (pb.MemberRole, error) {
	for role, n := range roleNames {
		if n == name {
			return role, nil
		}
	}
	return pb.MemberRole_MEMBER_ROLE_UNSPECIFIED, fmt.Errorf("%q is no role: use server, agent or user", name)
}

// String gives the identity as words, such as "agent n-1f… of cluster c-2e…".
func (i Identity) String() string {
	return fmt.Sprintf("%s %s of cluster %s", RoleName(i.Role), i.MemberID, i.ClusterID)
}

// URI gives the spiffe URI that stands for the identity in a certificate.
func (i Identity) URI() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: i.ClusterID, Path: "/" + RoleName(i.Role) + "/" + i.MemberID}
}

// Validate says what part of the identity is missing or ill-formed.
func (i Identity) Validate() error {
	if err := validPart("cluster ID", i.ClusterID); err != nil {
		return err
	}
	if _, ok := roleNames[i.Role]; !ok {
		return fmt.Errorf("role %v is none of server, agent, user", i.Role)
	}
	return validPart("member ID", i.MemberID)
}

// validPart keeps IDs to what needs no escape in a URI, a path or a log line.
func validPart(what, s string) error {
	if s == "" {
		return fmt.Errorf("the %s is empty", what)
	}
	if len(s) > identityPartMax {
		return fmt.Errorf("the %s has %d bytes, at most %d", what, len(s), identityPartMax)
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return fmt.Errorf("the %s has the character %q; small letters, digits and - are allowed", what, r)
		}
	}
	return nil
}

// ParseIdentity reads the identity out of a certificate: its one spiffe URI. It does not
// verify the certificate; connections of this package are verified before they are handed out.
func ParseIdentity(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 {
		return Identity{}, fmt.Errorf("certificate has %d URIs, want the one that names its owner", len(cert.URIs))
	}
	return parseURI(cert.URIs[0])
}

func parseURI(u *url.URL) (Identity, error) {
	if u.Scheme != "spiffe" || u.User != nil || u.Opaque != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.RawPath != "" {
		return Identity{}, fmt.Errorf("certificate URI %q is not spiffe://cluster/role/member", u)
	}
	parts := strings.Split(u.Path, "/")
	if len(parts) != 3 || parts[0] != "" {
		return Identity{}, fmt.Errorf("certificate URI %q is not spiffe://cluster/role/member", u)
	}
	role, err := ParseRole(parts[1])
	if err != nil {
		return Identity{}, fmt.Errorf("certificate URI %q: %w", u, err)
	}
	id := Identity{ClusterID: u.Host, Role: role, MemberID: parts[2]}
	if err := id.Validate(); err != nil {
		return Identity{}, fmt.Errorf("certificate URI %q: %w", u, err)
	}
	return id, nil
}
