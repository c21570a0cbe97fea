// Package engine speaks to a container engine: Docker's, or Podman's in Docker's words, over
// the Unix socket on which it listens. It knows the dozen calls that one task in one
// container needs, and decides nothing: agent/exec does, its only caller. There is no SDK
// below it, for that would bring two hundred packages for these calls.
package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// The API's versions: what this package was written for, and the least it can do with.
const (
	versionMajor    = 1
	versionMinor    = 44
	versionMinorMin = 40
)

const answerBytesMax = 4 << 20 // of an answer that is no stream

// Error is what an engine answers in place of what was asked for.
type Error struct {
	Status  int // of HTTP
	Message string
}

func (e *Error) Error() string { return e.Message }

// NotFound says whether an error is the engine's word that a thing is not there.
func NotFound(err error) bool { return hasStatus(err, http.StatusNotFound) }

// Conflict says whether an error is the engine's word that a thing is not in the state for
// what was asked: it does not run, or runs already.
func Conflict(err error) bool {
	return hasStatus(err, http.StatusConflict) || hasStatus(err, http.StatusNotModified)
}

func hasStatus(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

// Client is a connection to one engine. Safe for concurrent use.
type Client struct {
	socket string
	prefix string // of paths: the version of the API
	http   *http.Client
	init   bool
}

// HasInit says whether the engine has an init that it can put first into a container.
func (c *Client) HasInit() bool { return c.init }

// Dial finds out which version of the API the engine behind the socket speaks.
func Dial(ctx context.Context, socket string) (*Client, error) {
	c := &Client{socket: socket}
	c.http = &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConns: 2,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) }}}
	var v struct {
		APIVersion    string `json:"ApiVersion"`
		MinAPIVersion string `json:"MinAPIVersion"`
		Components    []struct{ Name, Version string }
	}
	if err := c.get(ctx, "/version", nil, &v); err != nil {
		return nil, fmt.Errorf("the engine at %s does not answer: %w", socket, err)
	}
	minor, err := choose(v.APIVersion, v.MinAPIVersion)
	if err != nil {
		return nil, fmt.Errorf("the engine at %s: %w", socket, err)
	}
	for _, part := range v.Components {
		if part.Name == "docker-init" && part.Version != "" && part.Version != "N/A" {
			c.init = true
		}
	}
	c.prefix = fmt.Sprintf("/v%d.%d", versionMajor, minor)
	return c, nil
}

// choose gives the minor version to speak: ours, but for an engine that is older, or that no
// longer speaks it.
func choose(newest, oldest string) (int, error) {
	high, err := minorOf(newest)
	if err != nil {
		return 0, err
	}
	low, err := minorOf(oldest)
	if err != nil {
		low = 0 // Podman's old versions do not tell
	}
	if high < versionMinorMin {
		return 0, fmt.Errorf("it speaks version %s of the API, at least %d.%d is needed", newest, versionMajor, versionMinorMin)
	}
	return max(min(versionMinor, high), low), nil
}

func minorOf(version string) (int, error) {
	major, minor, found := strings.Cut(version, ".")
	n, err := strconv.Atoi(minor)
	if !found || major != strconv.Itoa(versionMajor) || err != nil {
		return 0, fmt.Errorf("it speaks version %q of the API, which is not known here", version)
	}
	return n, nil
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", c.socket)
}

func (c *Client) get(ctx context.Context, path string, query url.Values, into any) error {
	return c.call(ctx, http.MethodGet, path, query, nil, into)
}

func (c *Client) post(ctx context.Context, path string, query url.Values, body, into any) error {
	return c.call(ctx, http.MethodPost, path, query, body, into)
}

// call asks and reads the whole answer; into may be nil.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, body, into any) error {
	answer, err := c.send(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	data, err := io.ReadAll(io.LimitReader(answer, answerBytesMax))
	if err != nil || into == nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("the engine's answer to %s %s cannot be read: %w", method, path, err)
	}
	return nil
}

// send asks and gives the body of a good answer.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, body any) (io.ReadCloser, error) {
	r, err := c.request(ctx, method, path, query, body)
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Do(r)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // without the address, which is none
		}
		return nil, err
	}
	if answer.StatusCode >= 200 && answer.StatusCode < 300 {
		return answer.Body, nil
	}
	defer answer.Body.Close()
	return nil, refusal(answer)
}

func (c *Client) request(ctx context.Context, method, path string, query url.Values, body any) (*http.Request, error) {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(data)
	}
	address := "http://engine" + c.prefix + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, address, content)
	if err == nil && body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, err
}

// refusal reads why the engine said no.
func refusal(answer *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(answer.Body, answerBytesMax))
	var said struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(data, &said) != nil || said.Message == "" {
		said.Message = strings.TrimSpace(string(data))
	}
	if said.Message == "" {
		said.Message = answer.Status
	}
	return &Error{Status: answer.StatusCode, Message: said.Message}
}
