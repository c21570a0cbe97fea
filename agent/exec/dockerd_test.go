package exec

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"llmos/agent/exec/engine"
	"llmos/test/rig"
)

// testEngine is a real container engine with a client of it.
type testEngine struct {
	*rig.Engine
	client *engine.Client
}

var dockerd = sync.OnceValues(func() (*testEngine, error) {
	r, err := rig.StartEngine(context.Background())
	if err != nil {
		return nil, err
	}
	stopDockerd = func() {
		if err := r.Remove(); err != nil {
			fmt.Fprintln(os.Stderr, "the tests' engine has left something:", err)
		}
	}
	e := &testEngine{Engine: r}
	e.client, err = engine.Dial(context.Background(), r.Socket)
	return e, err
})

// stopDockerd removes the engine of the tests, if one was started; TestMain calls it.
var stopDockerd = func() {}

// docker gives the engine of the tests, or skips.
func docker(t *testing.T) *testEngine {
	t.Helper()
	if why := rig.EngineMissing(); why != "" {
		t.Skip(why)
	}
	e, err := dockerd()
	if err != nil {
		t.Fatal(err)
	}
	return e
}
