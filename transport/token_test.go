package transport_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

func newToken(t testing.TB) transport.Token {
	t.Helper()
	creds := member(t, newCA(t, cluster), server, "s-1")
	token, err := transport.NewToken(cluster, creds.CA())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokenRoundTrip(t *testing.T) {
	want := newToken(t)
	got, err := transport.ParseToken("  " + want.String() + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if got.ClusterID != want.ClusterID || got.CAPin != want.CAPin || got.ID != want.ID || !bytes.Equal(got.Secret, want.Secret) {
		t.Fatalf("parsed %v, want %v", got, want)
	}
	if len(want.Secret) < 16 {
		t.Fatalf("the secret has %d bytes", len(want.Secret))
	}
	if again := newToken(t); bytes.Equal(again.Secret, want.Secret) || again.ID == want.ID {
		t.Fatal("two tokens are alike")
	}
}

func TestParseTokenSaysWhatIsWrong(t *testing.T) {
	parts := strings.Split(newToken(t).String(), ".")
	with := func(i int, s string) string {
		p := append([]string(nil), parts...)
		p[i] = s
		return strings.Join(p, ".")
	}
	for _, c := range []struct{ name, text, want string }{
		{"empty", "  ", "it is empty"},
		{"long", strings.Repeat("x", transport.TokenTextMax+1), "at most 512"},
		{"other version", with(0, "llmos2"), "does not begin with llmos1."},
		{"cut", strings.Join(parts[:3], "."), "it has 3 parts between dots, not 5"},
		{"no cluster", with(1, ""), "the cluster ID is empty"},
		{"bad cluster", with(1, "C_1"), `the character 'C'`},
		{"short pin", with(2, parts[2][:50]), "third part is not the fingerprint"},
		{"bad pin", with(2, strings.Repeat("1", 52)), "third part is not the fingerprint"},
		{"no id", with(3, ""), "the token ID is empty"},
		{"cut secret", with(4, parts[4][:8]), "its secret has 5 bytes, not 16 to 64"},
		{"secret with loss", with(4, parts[4][:30]), "its secret has characters"},
		{"capital secret", with(4, strings.ToUpper(parts[4])), "its secret has characters"},
	} {
		_, err := transport.ParseToken(c.text)
		if err == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		f := fault.From(err).Fault
		if f.Kind != pb.ErrorKind_ERROR_KIND_INVALID || !strings.Contains(f.Message, c.want) || f.Hint == "" {
			t.Errorf("%s: fault is %v, want %q", c.name, f, c.want)
		}
		if secret := parts[4]; strings.Contains(err.Error(), secret[:8]) {
			t.Errorf("%s: the error repeats the secret: %v", c.name, err)
		}
	}
}

func TestTokenIsNotLogged(t *testing.T) {
	token := newToken(t)
	var text, json bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("made", "token", token)
	slog.New(slog.NewJSONHandler(&json, nil)).Info("made", "token", token)
	secret := token.String()[strings.LastIndex(token.String(), ".")+1:]
	for _, out := range []string{text.String(), json.String()} {
		if strings.Contains(out, secret) || !strings.Contains(out, token.ID) {
			t.Errorf("logged %s", out)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(newToken(f).String())
	f.Add("llmos1.c-1.a.t-1.b")
	f.Add("llmos1....")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := transport.ParseToken(text)
		if err != nil {
			if fault.Kind(err) != pb.ErrorKind_ERROR_KIND_INVALID {
				t.Fatalf("error is no fault: %v", err)
			}
			return
		}
		if token.String() != strings.TrimSpace(text) {
			t.Fatalf("%q is accepted and written as %q", text, token.String())
		}
	})
}
