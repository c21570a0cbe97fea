package transport

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

const (
	tokenVersion     = "llmos1"
	tokenParts       = 5
	tokenTextMax     = 512 // bytes of a token's text form
	tokenSecretBytes = 20  // of a new token
	tokenSecretMin   = 16  // bytes accepted
	tokenSecretMax   = 64
	tokenIDBytes     = 6 // random bytes of a token's ID
)

// tokenEncoding writes pins and secrets: no characters that a shell or a double click minds.
var tokenEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Token admits one member once. Its text form is
// llmos1.<cluster id>.<pin>.<token id>.<secret>, pin and secret in small-letter base32.
type Token struct {
	ClusterID string
	CAPin     [sha256.Size]byte // see PinOf
	ID        string
	Secret    []byte // 16 to 64 random bytes
}

// PinOf gives what a token pins of the cluster's authority: the SHA-256 of its public key
// (SubjectPublicKeyInfo), which outlives a renewal of its certificate.
func PinOf(ca *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(ca.RawSubjectPublicKeyInfo) }

// NewToken draws the ID and the secret of a token for a cluster with the given authority.
func NewToken(clusterID string, ca *x509.Certificate) (Token, error) {
	random := make([]byte, tokenIDBytes+tokenSecretBytes)
	if _, err := rand.Read(random); err != nil {
		return Token{}, fmt.Errorf("draw a token: %w", err)
	}
	return Token{ClusterID: clusterID, CAPin: PinOf(ca), ID: "t-" + hex.EncodeToString(random[:tokenIDBytes]),
		Secret: random[tokenIDBytes:]}, nil
}

// String gives the text form, with the secret.
func (t Token) String() string {
	return strings.Join([]string{tokenVersion, t.ClusterID, tokenEncoding.EncodeToString(t.CAPin[:]), t.ID,
		tokenEncoding.EncodeToString(t.Secret)}, ".")
}

// LogValue keeps the secret out of logs.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.ID) }

// ParseToken reads the text form. What is wrong with it is a fault that names the part
// and never repeats the secret.
func ParseToken(text string) (Token, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return Token{}, badToken("it is empty")
	}
	if len(text) > tokenTextMax {
		return Token{}, badToken("it has %d bytes, at most %d", len(text), tokenTextMax)
	}
	parts := strings.Split(text, ".")
	if parts[0] != tokenVersion {
		return Token{}, badToken("it does not begin with %s.", tokenVersion)
	}
	if len(parts) != tokenParts {
		return Token{}, badToken("it has %d parts between dots, not %d", len(parts), tokenParts)
	}
	t := Token{ClusterID: parts[1], ID: parts[3]}
	if err := validPart("cluster ID", t.ClusterID); err != nil {
		return Token{}, badToken("%v", err)
	}
	if err := validPart("token ID", t.ID); err != nil {
		return Token{}, badToken("%v", err)
	}
	pin, ok := decodePart(parts[2])
	if !ok || len(pin) != len(t.CAPin) {
		return Token{}, badToken("its third part is not the fingerprint of an authority")
	}
	copy(t.CAPin[:], pin)
	if t.Secret, ok = decodePart(parts[4]); !ok {
		return Token{}, badToken("its secret has characters that do not belong there or has lost some")
	}
	if len(t.Secret) < tokenSecretMin || len(t.Secret) > tokenSecretMax {
		return Token{}, badToken("its secret has %d bytes, not %d to %d", len(t.Secret), tokenSecretMin, tokenSecretMax)
	}
	return t, nil
}

// decodePart accepts only what the encoder would have written, so that a token has one form.
func decodePart(s string) ([]byte, bool) {
	b, err := tokenEncoding.DecodeString(s)
	return b, err == nil && tokenEncoding.EncodeToString(b) == s
}

func badToken(format string, args ...any) error {
	return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "read the join token: "+format, args...).
		Hint("copy the whole token as `llmos token create` printed it")
}
