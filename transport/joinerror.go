package transport

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// dialError is a failure before the server was verified: the secret was not sent.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// joinErrors sorts what went wrong by what it tells the person who joins.
type joinErrors struct {
	final   error    // a server's refusal: asking others gives the same
	answer  error    // a server's "not now"
	pin     string   // an address with another authority
	silent  []string // addresses that did not answer, with the reason
	refused []string // addresses that answered but could not be verified, with the reason
}

// add sorts one attempt's error and gives the leader's address when the answer names one.
func (e *joinErrors) add(addr string, err error) (leader string) {
	var dial *dialError
	if errors.As(err, &dial) {
		reason := fmt.Sprintf("%s (%v)", addr, errors.Unwrap(dial.error))
		switch {
		case errors.Is(err, errPin):
			e.pin = addr
		case handshakeFailed(dial.error):
			e.refused = append(e.refused, reason)
		default:
			e.silent = append(e.silent, reason)
		}
		return ""
	}
	f := fault.From(err)
	switch f.Fault.Kind {
	case pb.ErrorKind_ERROR_KIND_NOT_LEADER:
		e.answer = f
		return f.Fault.LeaderAddr
	case pb.ErrorKind_ERROR_KIND_UNAVAILABLE, pb.ErrorKind_ERROR_KIND_UNKNOWN, pb.ErrorKind_ERROR_KIND_TIMEOUT:
		e.answer = f
	default:
		e.final = f
	}
	return ""
}

// handshakeFailed says whether a peer was there and was not what was wanted; one that
// let the handshake's time pass counts as silent.
func handshakeFailed(err error) bool {
	var h *handshakeError
	return errors.As(err, &h) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled)
}

// merge takes over what a later pass found; a pass that had no time found nothing.
func (e *joinErrors) merge(later joinErrors) {
	e.final = later.final
	if later.answer != nil {
		e.answer = later.answer
	}
	if later.pin != "" {
		e.pin = later.pin
	}
	if len(later.silent)+len(later.refused) > 0 {
		e.silent, e.refused = later.silent, later.refused
	}
}

// fault gives the one sentence that says most.
func (e *joinErrors) fault(j *joiner) error {
	cluster := j.id.ClusterID
	switch {
	case e.final != nil:
		return e.final
	case e.answer != nil:
		return fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "join cluster %s: no server could admit in time; the last answer was: %w", cluster, e.answer).
			Hint("look at the cluster with `llmos status`; when it has a leader, join again with the same token")
	case e.pin != "":
		return fault.New(pb.ErrorKind_ERROR_KIND_DENIED, "the cluster at %s does not have the certificate authority that the token names", e.pin).
			Hint("check the address, and that the token was made in this cluster; the token's secret was not sent")
	case len(e.refused) > 0:
		return fault.New(pb.ErrorKind_ERROR_KIND_DENIED, "join cluster %s: cannot verify the server at %s", cluster, strings.Join(e.refused, ", ")).
			Hint("check that the address is an llmos server's and that the clocks agree; the token's secret was not sent")
	default:
		return fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "join cluster %s: nobody answers at %s", cluster, e.asked(j)).
			Hint("check the addresses, that a server runs there, and that no firewall is between")
	}
}

func (e *joinErrors) asked(j *joiner) string {
	if len(e.silent) == 0 {
		return strings.Join(j.req.Addrs, ", ")
	}
	return strings.Join(e.silent, ", ")
}
