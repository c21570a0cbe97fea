package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// forwardsMax bounds the connections of one `forward` at a time.
const forwardsMax = 32

// forwardTold is the least time between two complaints about connections.
const forwardTold = time.Second

func (a *app) forwardCommand() *cobra.Command {
	var c connection
	address := "127.0.0.1"
	cmd := &cobra.Command{
		Use: "forward JOB[.RANK] [LOCAL:]PORT...", Short: "Reach a port of a running task from here",
		Long: "Listen here and join each connection to a port on which a process of the task listens:\n" +
			"a notebook, TensorBoard, a server. It goes on until it is interrupted. LOCAL 0 chooses a free port.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return invalid("%s takes a job and at least one port", cmd.CommandPath()).Hint("llmos forward notebook-1 8888")
			}
			return nil
		},
		Example: "  llmos forward notebook-1 8888\n  llmos forward train-1.2 16006:6006",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.forward(cmd.Context(), &c, address, args)
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&address, "address", address, "listen on this `ADDRESS` of this machine")
	return cmd
}

// forwarded is one port.
type forwarded struct {
	job           string
	rank          int32
	local, remote int
	listener      net.Listener
}

func (a *app) forward(ctx context.Context, c *connection, address string, args []string) error {
	ports, err := forwardedPorts(args)
	if err != nil {
		return err
	}
	s, err := a.open(ctx, c)
	if err != nil {
		return err
	}
	defer s.close()
	id, err := jobID(ctx, s, c, ports[0].job)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	for _, p := range ports {
		p.job = id
		p.listener, err = net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(p.local)))
		if err != nil {
			stop()
			return invalid("port %d of this machine cannot be listened on: %w", p.local, err).Hint("choose another: llmos forward %s 0:%d", p.job, p.remote)
		}
		context.AfterFunc(ctx, func() { p.listener.Close() })
		a.note("http://%s goes to port %d of rank %d of %s\n", p.listener.Addr(), p.remote, p.rank, p.job)
		f := &forwarder{a: a, s: s, forwarded: p, slots: make(chan struct{}, forwardsMax)}
		all.Go(func() { f.serve(ctx) })
	}
	<-ctx.Done()
	return nil
}

func forwardedPorts(args []string) ([]*forwarded, error) {
	job, rank, err := taskName(args[0])
	if err != nil {
		return nil, err
	}
	var ports []*forwarded
	for _, text := range args[1:] {
		local, remote, both := strings.Cut(text, ":")
		if !both {
			remote = local
		}
		from, err1 := strconv.ParseUint(local, 10, 16)
		to, err2 := strconv.ParseUint(remote, 10, 16)
		if err1 != nil || err2 != nil || to == 0 {
			return nil, invalid("%q is no port", text).Hint("write PORT or LOCAL:PORT, such as 8888 or 18888:8888")
		}
		ports = append(ports, &forwarded{job: job, rank: rank, local: int(from), remote: int(to)})
	}
	return ports, nil
}

// forwarder takes the connections of one port.
type forwarder struct {
	*forwarded
	a     *app
	s     *session
	slots chan struct{}

	mu   sync.Mutex
	told time.Time
}

func (f *forwarder) serve(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.slots <- struct{}{}
		all.Go(func() {
			defer func() { <-f.slots }()
			defer conn.Close()
			if err := f.join(ctx, conn.(*net.TCPConn)); err != nil && ctx.Err() == nil {
				f.complain(err)
			}
		})
	}
}

// complain says why a connection failed, but not for each of a page's many.
func (f *forwarder) complain(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.a.now(); now.Sub(f.told) >= forwardTold {
		f.told = now
		_ = f.a.report(context.Background(), err)
	}
}

// join copies both ways until both ends have closed.
func (f *forwarder) join(ctx context.Context, conn *net.TCPConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	stream, err := f.s.Forward(ctx)
	if err == nil {
		start := &pb.ForwardStart{JobId: f.job, Rank: f.rank, Port: int32(f.remote)}
		err = stream.Send(&pb.ForwardInput{Input: &pb.ForwardInput_Start{Start: start}})
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return reached(err, f.s.Servers())
	}
	if _, err := stream.Recv(); err != nil { // that it is connected
		return fault.Crossed(err, false)
	}
	go sendAll(stream, conn)
	for {
		out, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault.Crossed(err, false)
		}
		if out.GetDataEnd() {
			_ = conn.CloseWrite()
			continue
		}
		if _, err := conn.Write(out.GetData()); err != nil {
			return fmt.Errorf("write to the connection: %w", err)
		}
	}
}

// sendAll passes on what comes over the connection, to its end.
func sendAll(stream pb.ClusterService_ForwardClient, conn net.Conn) {
	for buf := make([]byte, visitBytes); ; {
		n, err := conn.Read(buf)
		if n > 0 && stream.Send(&pb.ForwardInput{Input: &pb.ForwardInput_Data{Data: append([]byte(nil), buf[:n]...)}}) != nil {
			return
		}
		if err != nil {
			_ = stream.Send(&pb.ForwardInput{Input: &pb.ForwardInput_DataEnd{DataEnd: true}})
			_ = stream.CloseSend()
			return
		}
	}
}
