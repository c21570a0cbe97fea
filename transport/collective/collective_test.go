package collective

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// testKey is an attempt key made of one byte.
func testKey(b byte) []byte {
	key := make([]byte, keyBytes)
	for i := range key {
		key[i] = b
	}
	return key
}

// worldOf gives the configurations of a world over loopback.
func worldOf(t testing.TB, world int) []Config {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	configs := make([]Config, world)
	for rank := range configs {
		configs[rank] = Config{Job: "charlm-1", Epoch: 1, Rank: rank, World: world, MasterAddr: "127.0.0.1",
			MasterPort: l.Addr().(*net.TCPAddr).Port, Key: testKey(7), JoinWithin: 30 * time.Second, Stall: 30 * time.Second}
	}
	configs[0].Listener = l
	return configs
}

// joinAll makes the group of all configurations.
func joinAll(t testing.TB, configs []Config) []*Group {
	t.Helper()
	groups := make([]*Group, len(configs))
	errs := make([]error, len(configs))
	each(len(configs), func(i int) { groups[i], errs[i] = Join(context.Background(), configs[i]) })
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { each(len(groups), func(i int) { groups[i].Close() }) })
	return groups
}

// each runs f for 0 to n-1 side by side.
func each(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

// vectors makes one vector a rank whose sum depends on the order of addition.
func vectors(seed uint64, world, n int) [][]float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([][]float32, world)
	for rank := range out {
		out[rank] = make([]float32, n)
		for i := range out[rank] {
			out[rank][i] = float32(math.Ldexp(r.Float64()-0.5, r.IntN(40)-20))
		}
	}
	return out
}

// serialSum adds the vectors in rank order.
func serialSum(v [][]float32) []float32 {
	sum := append([]float32(nil), v[0]...)
	for _, x := range v[1:] {
		for i := range sum {
			sum[i] += x[i]
		}
	}
	return sum
}

func sameBits(a, b []float32) error {
	if len(a) != len(b) {
		return fmt.Errorf("%d elements, want %d", len(a), len(b))
	}
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return fmt.Errorf("element %d is %v, want %v", i, a[i], b[i])
		}
	}
	return nil
}

func TestAllReduceIsTheSerialSum(t *testing.T) {
	for world := 1; world <= 5; world++ {
		t.Run(fmt.Sprintf("world %d", world), func(t *testing.T) {
			t.Parallel()
			groups := joinAll(t, worldOf(t, world))
			for round, n := range []int{0, 1, world - 1, world, 7, 1000, chunkElements, world*chunkElements + 3, 3*world*chunkElements - 1} {
				data := vectors(uint64(round), world, n)
				want := serialSum(data)
				errs := make([]error, world)
				each(world, func(i int) {
					if errs[i] = groups[i].AllReduce(context.Background(), data[i]); errs[i] == nil {
						errs[i] = sameBits(data[i], want)
					}
				})
				if err := errors.Join(errs...); err != nil {
					t.Fatalf("%d elements: %v", n, err)
				}
			}
		})
	}
}

func TestBroadcastIsBitForBit(t *testing.T) {
	const world = 4
	groups := joinAll(t, worldOf(t, world))
	for root := range world {
		for _, n := range []int{0, 1, 3, 2*chunkElements + 5} {
			data := vectors(uint64(root), world, n)
			if n > 2 {
				data[root][0], data[root][1] = float32(math.Copysign(0, -1)), math.Float32frombits(0x7fc12345)
			}
			want := append([]float32(nil), data[root]...)
			errs := make([]error, world)
			each(world, func(i int) {
				if errs[i] = groups[i].Broadcast(context.Background(), root, data[i]); errs[i] == nil {
					errs[i] = sameBits(data[i], want)
				}
			})
			if err := errors.Join(errs...); err != nil {
				t.Fatalf("root %d, %d elements: %v", root, n, err)
			}
		}
	}
	if err := groups[0].Broadcast(context.Background(), 4, nil); err == nil || err.Error() != "broadcast from rank 4: the ranks are 0 to 3" {
		t.Errorf("a root outside the world gives %v", err)
	}
}

func TestAllGatherAndBarrier(t *testing.T) {
	const world = 3
	groups := joinAll(t, worldOf(t, world))
	errs := make([]error, world)
	each(world, func(i int) {
		for range 5 {
			parts, err := groups[i].AllGather(context.Background(), []byte(strings.Repeat("x", i*1000)))
			if err != nil {
				errs[i] = err
				return
			}
			for rank, p := range parts {
				if len(p) != rank*1000 {
					errs[i] = fmt.Errorf("rank %d got %d bytes of rank %d", i, len(p), rank)
					return
				}
			}
			if errs[i] = groups[i].Barrier(context.Background()); errs[i] != nil {
				return
			}
		}
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if _, err := groups[0].AllGather(context.Background(), make([]byte, GatherBytesMax+1)); err == nil {
		t.Error("an all-gather beyond the bound is accepted")
	}
}

// TestDeadRankIsNamedByAll kills one rank's connections in the middle of a run: every other
// rank must name that rank, also one that hears of it from another first.
func TestDeadRankIsNamedByAll(t *testing.T) {
	const world, dead = 4, 2
	groups := joinAll(t, worldOf(t, world))
	errs := make([]error, world)
	each(world, func(i int) {
		data := make([]float32, 3*chunkElements)
		for step := 1; ; step++ {
			if i == dead && step == 5 {
				for _, l := range groups[i].links {
					if l != nil {
						l.raw.Close() // as the kernel does for a process that was killed
					}
				}
				return
			}
			if errs[i] = groups[i].AllReduce(context.Background(), data); errs[i] != nil {
				return
			}
		}
	})
	for i, err := range errs {
		if i == dead {
			continue
		}
		var rank *RankError
		if !errors.As(err, &rank) || rank.Rank != dead {
			t.Errorf("rank %d: %v, want one that names rank %d", i, err, dead)
			continue
		}
		if want := "rank 2 of job charlm-1 (epoch 1) closed its connection during all-reduce 5"; !strings.HasPrefix(err.Error(), want) {
			t.Errorf("rank %d: %q, want %q", i, err, want)
		}
		if again := groups[i].Barrier(context.Background()); again == nil || !strings.Contains(again.Error(), "rank 2") {
			t.Errorf("rank %d: the next call gives %v, want the same fault", i, again)
		}
	}
}

func TestRankThatGivesUpIsNamed(t *testing.T) {
	const world = 3
	groups := joinAll(t, worldOf(t, world))
	ctx, cancel := context.WithCancel(context.Background())
	errs := make([]error, world)
	each(world, func(i int) {
		if i == 0 {
			return // does not call at all
		}
		mine := context.Background()
		if i == 1 {
			mine = ctx
			time.AfterFunc(10*time.Millisecond, cancel)
		}
		errs[i] = groups[i].AllReduce(mine, make([]float32, 100))
	})
	for i := 1; i < world; i++ {
		if want := "rank 1 of job charlm-1 (epoch 1) gave up during all-reduce 1: context canceled"; errs[i] == nil || !strings.HasPrefix(errs[i].Error(), want) {
			t.Errorf("rank %d: %v, want %q", i, errs[i], want)
		}
	}
}

func TestSilentRankMeetsTheDeadline(t *testing.T) {
	groups := joinAll(t, worldOf(t, 2))
	groups[1].cfg.Stall = 50 * time.Millisecond
	err := groups[1].AllReduce(context.Background(), make([]float32, 100))
	if want := "rank 0 of job charlm-1 (epoch 1) was silent for 50ms during all-reduce 1"; err == nil || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
}

func TestDisagreementIsExplained(t *testing.T) {
	for _, c := range []struct {
		name string
		call func(g *Group) error
		want string
	}{
		{"length", func(g *Group) error { return g.AllReduce(context.Background(), make([]float32, 100+2*g.Rank())) }, "all ranks must pass"},
		{"operation", func(g *Group) error {
			if g.Rank() == 0 {
				return g.Barrier(context.Background())
			}
			return g.AllReduce(context.Background(), make([]float32, 100))
		}, "broke step during"},
	} {
		t.Run(c.name, func(t *testing.T) {
			groups := joinAll(t, worldOf(t, 2))
			errs := make([]error, 2)
			each(2, func(i int) { errs[i] = c.call(groups[i]) })
			for i, err := range errs {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("rank %d: %v, want one that says %q", i, err, c.want)
				}
			}
		})
	}
}

func TestConcurrentCallsAreRefused(t *testing.T) {
	groups := joinAll(t, worldOf(t, 2))
	done := make(chan error, 1)
	go func() { done <- groups[0].Barrier(context.Background()) }()
	deadline := time.After(20 * time.Second)
	for !groups[0].busy.Load() {
		select {
		case <-deadline:
			t.Fatal("the first call never began")
		default:
		}
	}
	if err := groups[0].AllReduce(context.Background(), make([]float32, 1)); !errors.Is(err, ErrBusy) {
		t.Errorf("a call beside another gives %v, want ErrBusy", err)
	}
	if err := groups[0].Close(); !errors.Is(err, ErrBusy) {
		t.Errorf("Close beside a call gives %v, want ErrBusy", err)
	}
	if err := groups[1].Barrier(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the first call was harmed: %v", err)
	}
	each(2, func(i int) { groups[i].Close() })
	if err := groups[0].Barrier(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("a call after Close gives %v", err)
	}
}

func BenchmarkAllReduce(b *testing.B) {
	for _, c := range []struct{ world, n int }{{2, 1 << 16}, {4, 1 << 16}, {2, 4 << 20}, {4, 4 << 20}} {
		b.Run(fmt.Sprintf("world=%d/floats=%d", c.world, c.n), func(b *testing.B) {
			groups := joinAll(b, worldOf(b, c.world))
			data := make([][]float32, c.world)
			for i := range data {
				data[i] = make([]float32, c.n)
			}
			b.SetBytes(int64(4 * c.n))
			b.ReportAllocs()
			for b.Loop() {
				each(c.world, func(i int) {
					if err := groups[i].AllReduce(context.Background(), data[i]); err != nil {
						b.Error(err)
					}
				})
			}
		})
	}
}
