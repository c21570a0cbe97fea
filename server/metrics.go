package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/metrics"
)

// metricsTimeout bounds one look of Prometheus.
const metricsTimeout = 30 * time.Second

// openMetrics listens for Prometheus, in plain HTTP, if the configuration asks for it.
func (s *Server) openMetrics(context.Context) (err error) {
	if s.cfg.Metrics == "" {
		return nil
	}
	if s.metrics, err = net.Listen("tcp", s.cfg.Metrics); err != nil {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "listen for Prometheus on %s: %w", s.cfg.Metrics, err).At("metrics", 0).
			Hint("choose a free address of this host, such as 127.0.0.1:7390")
	}
	return nil
}

// serveMetrics answers Prometheus until ctx ends.
func (s *Server) serveMetrics(ctx context.Context) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics.Handler(s))
	h := &http.Server{Handler: mux, ReadHeaderTimeout: metricsTimeout, WriteTimeout: metricsTimeout}
	stop := context.AfterFunc(ctx, func() { _ = h.Close() })
	defer stop()
	if err := h.Serve(s.metrics); !errors.Is(err, http.ErrServerClosed) {
		s.log.Error("Prometheus is not served any more", "err", err)
	}
}

// MetricsAddr is host:port at which Prometheus finds /metrics; empty: nowhere.
func (s *Server) MetricsAddr() string {
	if s.metrics == nil {
		return ""
	}
	return s.metrics.Addr().String()
}

// Standing is this server's place among the servers, for the metrics.
func (s *Server) Standing() metrics.Standing {
	_, _, leads := s.Leader()
	return metrics.Standing{ServerID: s.ServerID(), Version: s.cfg.Version, Leads: leads, Term: s.raft.Term(),
		Commit: s.raft.CommitIndex(), Applied: s.fsm.State().Index(), NowMS: s.Now().UnixMilli()}
}
