package transport

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// The files of a credentials folder.
const (
	CertificateFile = "node.crt" // PEM
	KeyFile         = "node.key" // PEM, PKCS #8, mode 0600
	CAFile          = "ca.crt"   // PEM
)

// credentialFileMax bounds a file that is read from a credentials folder, in bytes.
const credentialFileMax = 64 << 10

// Credentials is a process's certificate and key, and the authority it trusts. The
// certificate can be replaced while connections are made with it; the key, the authority
// and the identity stay. It is safe for concurrent use.
type Credentials struct {
	key      crypto.Signer
	ca       *x509.Certificate
	roots    *x509.CertPool
	identity Identity
	current  atomic.Pointer[tls.Certificate]
	network  Network
}

// NewKey makes a member's private key (ECDSA P-256).
func NewKey() (crypto.Signer, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// NewCredentials checks that the certificate was issued by the authority to the key and
// names an identity. An expired certificate is accepted here: its owner may still renew
// or explain; peers refuse it.
func NewCredentials(certDER []byte, key crypto.Signer, caDER []byte) (*Credentials, error) {
	ca, err := x509.ParseCertificate(caDER)
	if err != nil {
		return nil, fmt.Errorf("parse the authority's certificate: %w", err)
	}
	if !ca.IsCA {
		return nil, errors.New("the authority's certificate may not sign certificates")
	}
	c := &Credentials{key: key, ca: ca, roots: x509.NewCertPool(), network: &host{}}
	c.roots.AddCert(ca)
	cert, id, err := c.check(certDER)
	if err != nil {
		return nil, err
	}
	c.identity = id
	c.current.Store(cert)
	return c, nil
}

func (c *Credentials) check(certDER []byte) (*tls.Certificate, Identity, error) {
	leaf, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, Identity{}, fmt.Errorf("parse the certificate: %w", err)
	}
	id, err := ParseIdentity(leaf)
	if err != nil {
		return nil, Identity{}, err
	}
	public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(c.key.Public()) {
		return nil, Identity{}, fmt.Errorf("the certificate of %s does not belong to the private key", id)
	}
	if err := leaf.CheckSignatureFrom(c.ca); err != nil {
		return nil, Identity{}, fmt.Errorf("the certificate of %s was not issued by its authority: %w", id, err)
	}
	// The authority travels with the leaf so that a joiner can compare it with its token.
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, c.ca.Raw}, PrivateKey: c.key, Leaf: leaf}, id, nil
}

// Replace puts a renewed certificate in use for every later handshake. It must be for the
// same key and identity, by the same authority.
func (c *Credentials) Replace(certDER []byte) error {
	cert, id, err := c.check(certDER)
	if err != nil {
		return err
	}
	if id != c.identity {
		return fmt.Errorf("the new certificate is for %s, not for %s", id, c.identity)
	}
	c.current.Store(cert)
	return nil
}

// Identity says whom the certificate speaks for.
func (c *Credentials) Identity() Identity { return c.identity }

// NotBefore gives the begin of the current certificate's life.
func (c *Credentials) NotBefore() time.Time { return c.current.Load().Leaf.NotBefore }

// NotAfter gives the end of the current certificate's life.
func (c *Credentials) NotAfter() time.Time { return c.current.Load().Leaf.NotAfter }

// CA gives the authority's certificate. It must not be modified.
func (c *Credentials) CA() *x509.Certificate { return c.ca }

// CSR makes a certificate request for the current key, to renew the certificate. It names
// nobody: the issuer decides what the certificate says.
func (c *Credentials) CSR() ([]byte, error) { return NewCSR(c.key) }

// NewCSR makes a certificate request for a key: what joining and bootstrap begin with.
func NewCSR(key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return der, nil
}

// Save writes the credentials as CertificateFile, KeyFile and CAFile into dir, which is
// the tls folder itself and is made when absent. Each file is replaced atomically and
// synced; the certificate comes last, so a folder that has one is complete.
func (c *Credentials) Save(dir string) error {
	keyDER, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		return fmt.Errorf("encode the private key: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the credentials folder: %w", err)
	}
	files := []struct {
		name, kind string
		der        []byte
		mode       fs.FileMode
	}{
		{KeyFile, "PRIVATE KEY", keyDER, 0o600},
		{CAFile, "CERTIFICATE", c.ca.Raw, 0o644},
		{CertificateFile, "CERTIFICATE", c.current.Load().Leaf.Raw, 0o644},
	}
	for _, f := range files {
		text := pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der})
		if err := WriteFileAtomic(filepath.Join(dir, f.name), text, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// LoadCredentials reads what Save wrote to dir. A missing file gives an error that is
// fs.ErrNotExist; anything else that is wrong is a fault with a hint.
func LoadCredentials(dir string) (*Credentials, error) {
	certDER, err := readPEM(filepath.Join(dir, CertificateFile), "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	keyDER, err := readPEM(filepath.Join(dir, KeyFile), "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	caDER, err := readPEM(filepath.Join(dir, CAFile), "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, badFile(filepath.Join(dir, KeyFile), err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, badFile(filepath.Join(dir, KeyFile), fmt.Errorf("a %T cannot sign", key))
	}
	c, err := NewCredentials(certDER, signer, caDER)
	if err != nil {
		return nil, badFile(dir, err)
	}
	return c, nil
}

func badFile(path string, err error) error {
	return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "read credentials from %s: %w", path, err).
		Hint("remove the folder and join the cluster again with a new token")
}

func readPEM(path, kind string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	if info.Size() > credentialFileMax {
		return nil, badFile(path, fmt.Errorf("the file has %d bytes, at most %d", info.Size(), credentialFileMax))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, badFile(path, fmt.Errorf("the file holds no PEM block of type %s", kind))
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, badFile(path, errors.New("the file holds more than one PEM block"))
	}
	return block.Bytes, nil
}
