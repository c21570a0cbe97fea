package engine

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
)

// Info is what an engine says of itself.
type Info struct {
	Runtimes    map[string]json.RawMessage
	CDISpecDirs []string // empty: it knows no CDI
}

// Info asks what the engine can do.
func (c *Client) Info(ctx context.Context) (i Info, err error) {
	return i, c.get(ctx, "/info", nil, &i)
}

// Image is what an image says of the containers made of it.
type Image struct {
	ID     string `json:"Id"`
	Config struct {
		Cmd, Entrypoint, Env []string
		WorkingDir           string
	}
}

// Image looks for an image that the engine holds; see NotFound.
func (c *Client) Image(ctx context.Context, reference string) (i Image, err error) {
	return i, c.get(ctx, "/images/"+reference+"/json", nil, &i)
}

// Pull fetches an image from its registry.
func (c *Client) Pull(ctx context.Context, reference string) error {
	query := url.Values{"fromImage": {reference}}
	if !strings.Contains(reference, "@") && !strings.Contains(reference[strings.LastIndexByte(reference, '/')+1:], ":") {
		query.Set("tag", "latest") // without one the engine takes all there are
	}
	answer, err := c.send(ctx, http.MethodPost, "/images/create", query, nil)
	if err != nil {
		return err
	}
	defer answer.Close()
	lines := json.NewDecoder(answer)
	for {
		var line struct {
			Error string `json:"error"`
		}
		err := lines.Decode(&line)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case line.Error != "":
			return &Error{Status: http.StatusOK, Message: line.Error}
		}
	}
}

// Config is how a container is made. Its fields are those of the API.
type Config struct {
	Image      string
	Cmd        []string `json:",omitempty"` // nil: the image's
	Entrypoint []string // nil: the image's; one empty text: none
	Env        []string
	WorkingDir string `json:",omitempty"`
	User       string
	Labels     map[string]string

	AttachStdin, AttachStdout, AttachStderr, OpenStdin, StdinOnce, Tty bool

	HostConfig HostConfig
}

// HostConfig is what a container has of its host.
type HostConfig struct {
	NetworkMode    string
	Mounts         []Mount
	Memory         int64
	MemorySwap     int64 // memory and swap together
	CPUShares      int64 `json:"CpuShares"`
	PidsLimit      int64
	ShmSize        int64
	Init           bool
	SecurityOpt    []string
	GroupAdd       []string
	Devices        []Device
	DeviceRequests []DeviceRequest
	LogConfig      LogConfig
	RestartPolicy  RestartPolicy
}

// Mount shows a folder or file of the host in the container.
type Mount struct {
	Type, Source, Target string
	ReadOnly             bool
}

// Bind is a Mount of a path of the host.
func Bind(source, target string, readOnly bool) Mount {
	return Mount{Type: "bind", Source: source, Target: target, ReadOnly: readOnly}
}

// Device lets a container use a device file.
type Device struct{ PathOnHost, PathInContainer, CgroupPermissions string }

// DeviceRequest asks a driver of the engine for devices.
type DeviceRequest struct {
	Driver       string
	DeviceIDs    []string
	Capabilities [][]string `json:",omitempty"`
}

// LogConfig says where the engine keeps what a container writes.
type LogConfig struct{ Type string }

// RestartPolicy says whether the engine starts a container again.
type RestartPolicy struct{ Name string }

// Create makes a container and gives its ID.
func (c *Client) Create(ctx context.Context, name string, config Config) (id string, err error) {
	var made struct {
		ID string `json:"Id"`
	}
	err = c.post(ctx, "/containers/create", url.Values{"name": {name}}, config, &made)
	return made.ID, err
}

// Start starts a container.
func (c *Client) Start(ctx context.Context, id string) error {
	return c.post(ctx, "/containers/"+id+"/start", nil, nil, nil)
}

// Wait waits until the container does not run and gives its exit code.
func (c *Client) Wait(ctx context.Context, id string) (code int, err error) {
	var end struct {
		StatusCode int
		Error      *struct{ Message string }
	}
	if err := c.post(ctx, "/containers/"+id+"/wait", nil, nil, &end); err != nil {
		return 0, err
	}
	if end.Error != nil && end.Error.Message != "" {
		return end.StatusCode, fmt.Errorf("wait for the container: %s", end.Error.Message)
	}
	return end.StatusCode, nil
}

// Kill sends a signal to the container's first process.
func (c *Client) Kill(ctx context.Context, id, signal string) error {
	return c.post(ctx, "/containers/"+id+"/kill", url.Values{"signal": {signal}}, nil, nil)
}

// State is what became of a container.
type State struct {
	Running, OOMKilled bool
	PID                int `json:"Pid"`
	ExitCode           int
	Error              string
}

// Container is what the engine says of a container.
type Container struct {
	ID          string `json:"Id"`
	State       State
	Labels      map[string]string // in lists alone
	GraphDriver struct{ Data struct{ UpperDir string } }
}

// Inspect looks at a container; see NotFound.
func (c *Client) Inspect(ctx context.Context, id string) (k Container, err error) {
	return k, c.get(ctx, "/containers/"+id+"/json", nil, &k)
}

// Labelled lists the containers, running or not, that have the label with this value.
func (c *Client) Labelled(ctx context.Context, label, value string) ([]Container, error) {
	filter, err := json.Marshal(map[string][]string{"label": {label + "=" + value}})
	if err != nil {
		return nil, err
	}
	var found []struct {
		ID     string `json:"Id"`
		Labels map[string]string
	}
	if err := c.get(ctx, "/containers/json", url.Values{"all": {"1"}, "filters": {string(filter)}}, &found); err != nil {
		return nil, err
	}
	out := make([]Container, len(found))
	for i, f := range found {
		out[i] = Container{ID: f.ID, Labels: f.Labels}
	}
	return out, nil
}

// Stat looks at a path in a container, which need not run; see NotFound. A link is not followed.
func (c *Client) Stat(ctx context.Context, id, path string) (fs.FileMode, error) {
	r, err := c.request(ctx, http.MethodHead, "/containers/"+id+"/archive", url.Values{"path": {path}}, nil)
	if err != nil {
		return 0, err
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return 0, refusal(answer)
	}
	var stat struct {
		Mode fs.FileMode `json:"mode"`
	}
	data, err := base64.StdEncoding.DecodeString(answer.Header.Get("X-Docker-Container-Path-Stat"))
	if err == nil {
		err = json.Unmarshal(data, &stat)
	}
	return stat.Mode, err
}

// Remove kills a container and deletes it with its volumes. One that is not there is removed.
func (c *Client) Remove(ctx context.Context, id string) error {
	err := c.call(ctx, http.MethodDelete, "/containers/"+id, url.Values{"force": {"1"}, "v": {"1"}}, nil, nil)
	if NotFound(err) {
		return nil
	}
	return err
}
