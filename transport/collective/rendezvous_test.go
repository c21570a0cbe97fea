package collective

import (
	"context"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair gives two configurations, the second of which has been changed.
func pair(t testing.TB, change func(c *Config)) []Config {
	configs := worldOf(t, 2)
	configs[0].JoinWithin, configs[1].JoinWithin = 4*time.Second, time.Hour
	change(&configs[1])
	return configs
}

// TestStrangersAreRefused lets a second rank come that does not belong: its own error must
// say why, and rank 0's who is missing. The stranger would try for an hour: that the test
// ends shows that one who can never succeed does not try on.
func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		change func(c *Config)
		second string
		first  string
	}{
		{"older epoch", func(c *Config) { c.Epoch = 0 },
			"rank 1 of job charlm-1 has epoch 0, which has been replaced by epoch 1", "ranks [1] did not come within 4s; the last that was turned away: rank 1 of job charlm-1 has epoch 0"},
		{"older epoch with its own key", func(c *Config) { c.Epoch, c.Key = 0, testKey(9) },
			"the other side does not hold the key of job charlm-1 (epoch 0); it says it is job charlm-1 (epoch 1)", "ranks [1] did not come"},
		{"newer epoch", func(c *Config) { c.Epoch, c.JoinWithin = 2, 500*time.Millisecond },
			"has epoch 2, and knocked at epoch 1, which it has replaced", "ranks [1] did not come"},
		{"wrong key", func(c *Config) { c.Key = testKey(9) },
			"does not hold the key of job charlm-1 (epoch 1)", "remote error: tls: bad certificate"},
		{"other job", func(c *Config) { c.Job = "other-3" }, `rank 1 of job "other-3" knocked at job charlm-1 (epoch 1)`, "ranks [1]"},
		{"other world", func(c *Config) { c.World = 3 }, "rank 1 says the world has 3 ranks, rank 0 says 2", "ranks [1]"},
	}
	errs := make([][2]error, len(cases))
	pairs := make([][]Config, len(cases))
	for n, c := range cases {
		pairs[n] = pair(t, c.change)
	}
	each(len(cases), func(n int) { // all at once: most of the time is rank 0's waiting
		each(2, func(i int) { _, errs[n][i] = Join(context.Background(), pairs[n][i]) })
	})
	for n, c := range cases {
		if err := errs[n][1]; err == nil || !strings.Contains(err.Error(), c.second) {
			t.Errorf("%s: the stranger gets %v, want one that says %q", c.name, err, c.second)
		}
		if err := errs[n][0]; err == nil || !strings.Contains(err.Error(), c.first) {
			t.Errorf("%s: rank 0 gets %v, want one that says %q", c.name, err, c.first)
		}
	}
}

// TestNewerAttemptWaitsForTheOldPort has a newer rank meet an older attempt's rank 0 first:
// it must go on trying until its own rank 0 is there.
func TestNewerAttemptWaitsForTheOldPort(t *testing.T) {
	old := worldOf(t, 2)
	stop, cancel := context.WithCancel(context.Background())
	oldDone := make(chan error, 1)
	go func() {
		_, err := Join(stop, old[0])
		oldDone <- err
	}()
	now := make([]Config, 2)
	for i := range now {
		now[i] = old[i]
		now[i].Epoch, now[i].Key, now[i].Listener = 2, testKey(8), nil
	}
	errs := make([]error, 2)
	each(2, func(i int) {
		if i == 0 {
			// The port is free again once the old rank 0 has ended; until then this one waits.
			time.AfterFunc(300*time.Millisecond, cancel)
		}
		var g *Group
		if g, errs[i] = Join(context.Background(), now[i]); errs[i] == nil {
			errs[i] = g.Barrier(context.Background())
			g.Close()
		}
	})
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	if err := <-oldDone; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "stopped while ranks [1] were still missing") {
		t.Errorf("the old rank 0 gives %v", err)
	}
}

// TestJoinEndsWithItsContext has rank 1 wait for the welcome of a rank 0 that lacks others:
// a task that is asked to stop meanwhile must not wait for rank 0's patience to end.
func TestJoinEndsWithItsContext(t *testing.T) {
	t.Parallel()
	configs := worldOf(t, 3)
	configs[1].JoinWithin = time.Hour
	conf, err := tlsConfig(configs[0])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	member := make(chan error, 1)
	go func() {
		_, err := Join(ctx, configs[1])
		member <- err
	}()
	raw, err := configs[0].Listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if _, h, err := accept(ctx, configs[0], conf, raw); err != nil || h.Rank != 1 {
		t.Fatal(h, err)
	}
	cancel()
	select {
	case err := <-member:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("rank 1 gives %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("rank 1 does not end")
	}
}

func TestMissingRankIsNamed(t *testing.T) {
	t.Parallel()
	configs := worldOf(t, 4)
	for i := range configs {
		configs[i].JoinWithin = 3 * time.Second
	}
	errs := make([]error, 4)
	each(4, func(i int) {
		if i != 2 {
			_, errs[i] = Join(context.Background(), configs[i])
		}
	})
	want := "rank 0 joins job charlm-1 (epoch 1): ranks [2] did not come within 3s"
	if errs[0] == nil || errs[0].Error() != want {
		t.Errorf("%v, want %q", errs[0], want)
	}
	for _, i := range []int{1, 3} {
		if errs[i] == nil {
			t.Errorf("rank %d joined a group that is not whole", i)
		}
	}
}

func TestFromEnv(t *testing.T) {
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(hex.EncodeToString(testKey(3))+"\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("abcd"), 0o400); err != nil {
		t.Fatal(err)
	}
	full := map[string]string{"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "20000",
		"LLMOS_JOB_ID": "charlm-1", "LLMOS_EPOCH": "3", "LLMOS_ATTEMPT_KEY_FILE": keyFile}
	for _, c := range []struct {
		name   string
		change map[string]string
		want   string // of the error; empty: none
	}{
		{"complete", nil, ""},
		{"rank outside", map[string]string{"RANK": "4"}, "rank 4 in a world of 4: ranks are 0 to 3"},
		{"not a number", map[string]string{"RANK": "x", "MASTER_PORT": "0"},
			"the environment does not describe a rank: RANK is \"x\", want a number from 0 to 1023\nMASTER_PORT is \"0\", want a number from 1 to 65535"},
		{"no job", map[string]string{"LLMOS_JOB_ID": "", "LLMOS_EPOCH": ""}, "the environment does not describe a rank: LLMOS_JOB_ID is not set\nLLMOS_EPOCH is not set"},
		{"short key", map[string]string{"LLMOS_ATTEMPT_KEY_FILE": short}, "does not hold 32 bytes in hex"},
		{"by hand", map[string]string{"RANK": "", "WORLD_SIZE": ""}, ""},
		{"world of one", map[string]string{"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "", "MASTER_PORT": "", "LLMOS_ATTEMPT_KEY_FILE": ""}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, value := range full {
				t.Setenv(name, value)
			}
			for name, value := range c.change {
				t.Setenv(name, value)
			}
			got, err := FromEnv()
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if c.name == "complete" && (got.Rank != 1 || got.World != 4 || got.Epoch != 3 || got.Job != "charlm-1" || got.MasterPort != 20000 || len(got.Key) != 32) {
					t.Errorf("%+v", got)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
