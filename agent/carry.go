package agent

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"llmos/agent/checkpoint"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// carryBytes is how much of a checkpoint travels in one message. Transport's bulk streams take the
// place of this file; the vault knows only openSource.
const carryBytes = 1 << 20

// ReadCheckpoint sends a checkpoint to another agent: one that the leader has named as its reader,
// because it is to hold a copy or to run a task that goes on from it.
func (s *agentService) ReadCheckpoint(req *pb.ReadCheckpointRequest, stream grpc.ServerStreamingServer[pb.CheckpointChunk]) error {
	d, err := checkpoint.DigestOf(req.GetManifestSha256())
	if err != nil || req.GetOffset() < 0 {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "a checkpoint cannot be read by this request")
	}
	id, ok := s.peer(stream)
	if !ok || id.Role != pb.MemberRole_MEMBER_ROLE_AGENT || s.vault == nil || !s.vault.mayRead(d, id.MemberID) {
		return fault.New(pb.ErrorKind_ERROR_KIND_DENIED, "node %s has not been told that %s may read this checkpoint", s.site.nodeName, id)
	}
	out := &chunkWriter{stream: stream}
	err = s.vault.store.Send(stream.Context(), d, req.GetOffset(), out)
	if err == nil {
		err = out.flush()
	}
	switch {
	case errors.Is(err, checkpoint.ErrAbsent):
		return fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "node %s does not hold this checkpoint", s.site.nodeName)
	case errors.Is(err, checkpoint.ErrBroken):
		s.vault.lose(d, err.Error())
		return fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "node %s holds no good copy of this checkpoint: %w", s.site.nodeName, err)
	}
	return err
}

// chunkWriter sends bytes in messages of carryBytes.
type chunkWriter struct {
	stream grpc.ServerStreamingServer[pb.CheckpointChunk]
	buf    []byte
}

func (w *chunkWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		take := min(len(b), carryBytes-len(w.buf))
		w.buf = append(w.buf, b[:take]...)
		b, n = b[take:], n+take
		if len(w.buf) == carryBytes {
			if err := w.flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

func (w *chunkWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	chunk := &pb.CheckpointChunk{Data: w.buf}
	w.buf = nil // the stream may keep it
	return w.stream.Send(chunk)
}

// carry gives an openSource that reads from other agents over their ports.
func carry(creds *transport.Credentials) openSource {
	return func(ctx context.Context, from *pb.CheckpointSource, d checkpoint.Digest, offset int64) (io.ReadCloser, error) {
		conn, err := transport.NewMemberClient(from.GetAddr(), creds, pb.MemberRole_MEMBER_ROLE_AGENT, from.GetNodeId())
		if err != nil {
			return nil, fmt.Errorf("reach %s: %w", from.GetAddr(), err)
		}
		ctx, cancel := context.WithCancel(ctx)
		stream, err := pb.NewAgentServiceClient(conn).ReadCheckpoint(ctx, &pb.ReadCheckpointRequest{ManifestSha256: d[:], Offset: offset})
		if err != nil {
			cancel()
			return nil, errors.Join(err, conn.Close())
		}
		return &carried{stream: stream, end: func() error { cancel(); return conn.Close() }}, nil
	}
}

// carried reads the stream of another agent.
type carried struct {
	stream grpc.ServerStreamingClient[pb.CheckpointChunk]
	rest   []byte
	end    func() error
}

func (c *carried) Read(b []byte) (int, error) {
	for len(c.rest) == 0 {
		chunk, err := c.stream.Recv()
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		if err != nil {
			return 0, fault.Crossed(err, false)
		}
		c.rest = chunk.GetData()
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *carried) Close() error { return c.end() }
