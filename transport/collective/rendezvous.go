package collective

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	dialRetry       = 100 * time.Millisecond // between attempts to reach a rank that is not there yet
	handshakeWithin = 10 * time.Second       // of one connection that was accepted
	handshakesMax   = 64                     // at once; more wait in the kernel's queue
	listenRetry     = 200 * time.Millisecond // while the port of the attempt before is still taken
)

// Join meets the other ranks and returns once all are connected with all. Rank 0 listens on
// the rendezvous address; every other rank listens on a free port of the interface by which
// it reaches rank 0, tells rank 0 its address, is told those of the others, and dials the
// lower ranks. The error says who is missing, or why this rank was refused.
func Join(ctx context.Context, c Config) (*Group, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("join %s: %w", c.attempt(), err)
	}
	g := newGroup(c)
	if c.World == 1 {
		return g, nil
	}
	conf, err := tlsConfig(c)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.joinWithin())
	defer cancel()
	j := &joining{cfg: c, tls: conf, group: g}
	if c.Rank == 0 {
		err = j.master(ctx)
	} else {
		err = j.member(ctx)
	}
	if err == nil {
		err = g.Barrier(ctx)
	}
	if err != nil {
		g.Close()
		return nil, fmt.Errorf("rank %d joins %s: %w", c.Rank, c.attempt(), err)
	}
	return g, nil
}

// joining is one rank on its way into the group.
type joining struct {
	cfg   Config
	tls   *tls.Config
	group *Group
}

// guest is a connection that was accepted and fits, or why it does not.
type guest struct {
	link  *link
	hello hello
	err   error
}

// master waits for every rank and then tells each where the others are.
func (j *joining) master(ctx context.Context) error {
	listener := j.cfg.Listener
	if listener == nil {
		var err error
		if listener, err = listenMaster(ctx, j.cfg); err != nil {
			return err
		}
	}
	addrs := make([]string, j.cfg.World)
	err := j.receiveGuests(ctx, listener, 1, func(g guest) error {
		addrs[g.hello.Rank] = g.hello.Addr
		return nil
	})
	if err != nil {
		return err
	}
	for _, l := range j.group.links[1:] {
		if err := l.sendJSON(kindWelcome, welcome{Rank: 0, Addrs: addrs}); err != nil {
			return fmt.Errorf("tell rank %d where the others are: %w", l.rank, err)
		}
	}
	return nil
}

// listenMaster listens on the rendezvous address, or on every interface when that address
// is not one of this host's (a name that a network translates).
func listenMaster(ctx context.Context, c Config) (net.Listener, error) {
	port := strconv.Itoa(c.MasterPort)
	for {
		var conf net.ListenConfig
		l, err := conf.Listen(ctx, "tcp", net.JoinHostPort(c.MasterAddr, port))
		if err != nil && !isInUse(err) {
			l, err = conf.Listen(ctx, "tcp", ":"+port)
		}
		if err == nil {
			return l, nil
		}
		if !isInUse(err) || !pause(ctx, listenRetry) {
			return nil, fmt.Errorf("listen for the other ranks: %w", err)
		}
	}
}

// member registers with rank 0, then connects with the other ranks: it dials the lower ones
// and is dialled by the higher ones.
func (j *joining) member(ctx context.Context) error {
	me := hello{Job: j.cfg.Job, Epoch: j.cfg.Epoch, Rank: j.cfg.Rank, World: j.cfg.World}
	var listener net.Listener
	defer func() {
		if listener != nil {
			listener.Close()
		}
	}()
	l, w, err := j.reach(ctx, 0, net.JoinHostPort(j.cfg.MasterAddr, strconv.Itoa(j.cfg.MasterPort)), func(raw net.Conn) (hello, error) {
		if listener == nil {
			host, _, err := net.SplitHostPort(raw.LocalAddr().String())
			if err != nil {
				return hello{}, err
			}
			if listener, err = net.Listen("tcp", net.JoinHostPort(host, "0")); err != nil {
				return hello{}, fmt.Errorf("listen for the higher ranks: %w", err)
			}
		}
		h := me
		h.Addr = listener.Addr().String()
		return h, nil
	})
	if err != nil {
		return err
	}
	j.group.links[0] = l
	if len(w.Addrs) != j.cfg.World {
		return fmt.Errorf("rank 0 knows %d ranks, want %d", len(w.Addrs), j.cfg.World)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	higher := make(chan error, 1)
	go func() {
		higher <- j.receiveGuests(ctx, listener, j.cfg.Rank+1, func(g guest) error {
			return g.link.sendJSON(kindWelcome, welcome{Rank: j.cfg.Rank})
		})
	}()
	for rank := 1; rank < j.cfg.Rank; rank++ {
		l, _, dialErr := j.reach(ctx, rank, w.Addrs[rank], func(net.Conn) (hello, error) { return me, nil })
		if dialErr != nil {
			cancel()
			<-higher
			return dialErr
		}
		j.group.links[rank] = l
	}
	return <-higher
}

// reach connects to a rank, again and again until ctx ends, because that rank may not have
// started yet, or a process of an older attempt may still hold its port.
func (j *joining) reach(ctx context.Context, rank int, addr string, greet func(net.Conn) (hello, error)) (*link, welcome, error) {
	dialer := net.Dialer{KeepAliveConfig: keepAlive}
	var last error
	for {
		raw, err := dialer.DialContext(ctx, "tcp", addr)
		if err == nil {
			var l *link
			var w welcome
			var h hello
			if h, err = greet(raw); err == nil {
				if l, w, err = dial(ctx, j.cfg, j.tls, raw, rank, h); err == nil {
					return l, w, nil
				}
			}
			raw.Close()
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
			err = context.Cause(ctx) // which has set the deadline
		}
		if last == nil || ctx.Err() == nil {
			last = err // not the end of ctx, when there is a better reason
		}
		if j.final(err) {
			return nil, welcome{}, err
		}
		if !pause(ctx, dialRetry) {
			return nil, welcome{}, fmt.Errorf("rank %d at %s is not there within %v: %w", rank, addr, j.cfg.joinWithin(), last)
		}
	}
}

// final says whether trying again cannot help: this rank has been replaced, or the two will
// never agree. An older attempt's process in the way will go; a newer one's will not.
func (j *joining) final(err error) bool {
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused.Epoch >= j.cfg.Epoch
	}
	var key *WrongKeyError
	if errors.As(err, &key) {
		epoch, ok := key.theirEpoch()
		return ok && epoch >= j.cfg.Epoch
	}
	return false
}

// receiveGuests accepts until each rank from the given one upwards has a link, and closes the
// listener. Strangers are turned away and remembered only for the error.
func (j *joining) receiveGuests(ctx context.Context, listener net.Listener, from int, greet func(guest) error) error {
	ctx, cancel := context.WithCancel(ctx)
	guests := make(chan guest)
	var all sync.WaitGroup
	all.Add(1)
	go func() {
		defer all.Done()
		j.accept(ctx, listener, guests)
	}()
	defer func() {
		cancel()
		listener.Close()
		all.Wait()
	}()
	missing := j.cfg.World - from
	var turned error
	for missing > 0 {
		select {
		case <-ctx.Done():
			return j.absent(ctx.Err(), from, turned)
		case g := <-guests:
			if g.err != nil {
				turned = g.err
				continue
			}
			if err := greet(g); err != nil {
				turned = err
				g.link.raw.Close()
				continue
			}
			if old := j.group.links[g.hello.Rank]; old != nil {
				old.raw.Close() // it dialled again because its first connection broke
			} else {
				missing--
			}
			j.group.links[g.hello.Rank] = g.link
		}
	}
	return nil
}

// accept hands every connection's outcome to guests until ctx ends or the listener fails.
func (j *joining) accept(ctx context.Context, listener net.Listener, guests chan<- guest) {
	places := make(chan struct{}, handshakesMax)
	var all sync.WaitGroup
	defer all.Wait()
	for {
		raw, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) || !pause(ctx, dialRetry) {
				return
			}
			continue
		}
		if tcp, ok := raw.(*net.TCPConn); ok {
			tcp.SetKeepAliveConfig(keepAlive)
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			raw.Close()
			return
		}
		all.Go(func() {
			defer func() { <-places }()
			raw.SetDeadline(time.Now().Add(handshakeWithin))
			within, cancel := context.WithTimeout(ctx, handshakeWithin)
			defer cancel()
			l, h, err := accept(within, j.cfg, j.tls, raw)
			if err == nil {
				raw.SetDeadline(time.Time{})
			}
			select {
			case guests <- guest{l, h, err}:
				if err == nil {
					return
				}
			case <-ctx.Done():
			}
			raw.Close()
		})
	}
}

// absent names the ranks that did not come.
func (j *joining) absent(cause error, from int, turned error) error {
	var ranks []int
	for rank := from; rank < j.cfg.World; rank++ {
		if j.group.links[rank] == nil {
			ranks = append(ranks, rank)
		}
	}
	err := fmt.Errorf("ranks %v did not come within %v", ranks, j.cfg.joinWithin())
	if errors.Is(cause, context.Canceled) {
		err = fmt.Errorf("stopped while ranks %v were still missing: %w", ranks, cause)
	}
	if turned != nil {
		err = fmt.Errorf("%w; the last that was turned away: %w", err, turned)
	}
	return err
}

// pause waits and says whether ctx is still going on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// isInUse says whether a listener could not be made because its port is taken.
func isInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }
