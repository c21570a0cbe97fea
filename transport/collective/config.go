package collective

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	joinTimeoutDefault  = 60 * time.Second
	stallTimeoutDefault = 2 * time.Minute
	keyBytes            = 32
	jobBytesMax         = 256
)

// Config says which group to join and as whom.
type Config struct {
	Job        string
	Epoch      uint64
	Rank       int
	World      int
	MasterAddr string        // host of rank 0
	MasterPort int           // where rank 0 listens
	Key        []byte        // the attempt key, 32 bytes; not needed when World is 1
	Listener   net.Listener  // rank 0: used in place of listening on MasterAddr and MasterPort; Join closes it
	JoinWithin time.Duration // until all ranks are there; 0 means 60 s
	Stall      time.Duration // longest silence of a rank inside a collective; 0 means 2 minutes
}

// FromEnv reads the environment of a task: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT,
// LLMOS_JOB_ID, LLMOS_EPOCH and the key in the file LLMOS_ATTEMPT_KEY_FILE. With neither
// RANK nor WORLD_SIZE set, the program was started by hand and is a world of its own. The
// error names every variable that is missing or wrong.
func FromEnv() (Config, error) {
	if os.Getenv("RANK") == "" && os.Getenv("WORLD_SIZE") == "" {
		return Config{Job: "local", World: 1}, nil
	}
	e := &environment{}
	c := Config{Job: os.Getenv("LLMOS_JOB_ID"), Rank: e.number("RANK", 0, WorldMax-1), World: e.number("WORLD_SIZE", 1, WorldMax)}
	if c.World > 1 {
		e.text("LLMOS_JOB_ID")
		c.MasterAddr, c.MasterPort = e.text("MASTER_ADDR"), e.number("MASTER_PORT", 1, 65535)
		c.Key = e.key("LLMOS_ATTEMPT_KEY_FILE")
	}
	if c.World > 1 || os.Getenv("LLMOS_EPOCH") != "" {
		c.Epoch = uint64(e.number("LLMOS_EPOCH", 0, 1<<62))
	}
	if c.Job == "" {
		c.Job = "local"
	}
	if err := errors.Join(e.faults...); err != nil {
		return Config{}, fmt.Errorf("the environment does not describe a rank: %w", err)
	}
	return c, c.check()
}

// environment collects what is wrong with the variables it is asked for.
type environment struct{ faults []error }

func (e *environment) text(name string) string {
	v := os.Getenv(name)
	if v == "" {
		e.faults = append(e.faults, fmt.Errorf("%s is not set", name))
	}
	return v
}

func (e *environment) number(name string, least, most int) int {
	v := e.text(name)
	if v == "" {
		return least
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		e.faults = append(e.faults, fmt.Errorf("%s is %q, want a number from %d to %d", name, v, least, most))
		return least
	}
	return n
}

func (e *environment) key(name string) []byte {
	path := e.text(name)
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		e.faults = append(e.faults, fmt.Errorf("%s: %w", name, err))
		return nil
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != keyBytes {
		// The text of a key never goes into an error.
		e.faults = append(e.faults, fmt.Errorf("%s: %s does not hold %d bytes in hex", name, path, keyBytes))
		return nil
	}
	return key
}

// check refuses what cannot become a group.
func (c Config) check() error {
	switch {
	case c.World < 1 || c.World > WorldMax:
		return fmt.Errorf("a world of %d ranks, want 1 to %d", c.World, WorldMax)
	case c.Rank < 0 || c.Rank >= c.World:
		return fmt.Errorf("rank %d in a world of %d: ranks are 0 to %d", c.Rank, c.World, c.World-1)
	case len(c.Job) > jobBytesMax:
		return fmt.Errorf("a job ID of %d bytes, at most %d", len(c.Job), jobBytesMax)
	case c.World > 1 && len(c.Key) != keyBytes:
		return fmt.Errorf("an attempt key of %d bytes, want %d", len(c.Key), keyBytes)
	case c.World > 1 && c.MasterAddr == "":
		return errors.New("the address of rank 0 is empty")
	}
	return nil
}

func (c Config) joinWithin() time.Duration {
	if c.JoinWithin > 0 {
		return c.JoinWithin
	}
	return joinTimeoutDefault
}

func (c Config) stall() time.Duration {
	if c.Stall > 0 {
		return c.Stall
	}
	return stallTimeoutDefault
}

// attempt names the attempt in errors.
func (c Config) attempt() string { return fmt.Sprintf("job %s (epoch %d)", c.Job, c.Epoch) }
