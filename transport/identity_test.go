package transport_test

import (
	"crypto/x509"
	"net/url"
	"strings"
	"testing"

	"llmos/transport"
)

func TestIdentityURI(t *testing.T) {
	id := transport.Identity{ClusterID: cluster, Role: agent, MemberID: "n-00ff"}
	if got, want := id.URI().String(), "spiffe://c-0123456789ab/agent/n-00ff"; got != want {
		t.Fatalf("URI is %s, want %s", got, want)
	}
	got, err := transport.ParseIdentity(&x509.Certificate{URIs: []*url.URL{id.URI()}})
	if err != nil || got != id {
		t.Fatalf("parsed %v, %v", got, err)
	}
}

func TestParseIdentityRefuses(t *testing.T) {
	for _, text := range []string{
		"https://c-1/server/s-1",
		"spiffe://c-1/server",
		"spiffe://c-1/server/s-1/more",
		"spiffe://c-1/server/s-1/",
		"spiffe://c-1//s-1",
		"spiffe://c-1/root/s-1",
		"spiffe://c-1/unspecified/s-1",
		"spiffe:///server/s-1",
		"spiffe://c-1/server/",
		"spiffe://c-1/server/S-1",
		"spiffe://c-1/server/s%2f1",
		"spiffe://c-1:99/server/s-1",
		"spiffe://me@c-1/server/s-1",
		"spiffe://c-1/server/s-1?as=agent",
		"spiffe://c-1/server/s-1#x",
		"spiffe:c-1/server/s-1",
		"spiffe://c-1/server/" + strings.Repeat("a", 65),
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := transport.ParseIdentity(&x509.Certificate{URIs: []*url.URL{u}}); err == nil {
			t.Errorf("%s is taken for %v", text, id)
		}
	}
	good := &url.URL{Scheme: "spiffe", Host: "c-1", Path: "/server/s-1"}
	for n, uris := range map[string][]*url.URL{"none": nil, "two": {good, good}} {
		if id, err := transport.ParseIdentity(&x509.Certificate{URIs: uris}); err == nil {
			t.Errorf("%s URIs are taken for %v", n, id)
		}
	}
}
