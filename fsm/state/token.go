package state

import (
	"iter"

	pb "llmos/proto/llmos/v1"
)

// Token gives the join token of an ID; nil when there is none.
func (s *State) Token(id string) *pb.JoinToken { return lookup(s.tokens, []byte(id)) }

// Tokens walks the join tokens by ID.
func (s *State) Tokens() iter.Seq[*pb.JoinToken] { return records(s.tokens, nil) }

// Token gives the join token of an ID; nil when there is none.
func (t *Txn) Token(id string) *pb.JoinToken { return t.tokens.rec([]byte(id)) }

// TokenCount is the number of join tokens, used and expired ones included.
func (t *Txn) TokenCount() int { return t.tokens.len() }

// PutToken writes a join token.
func (t *Txn) PutToken(k *pb.JoinToken) { t.tokens.putRec([]byte(k.Id), k) }

// TokensExpiredBefore gives at most limit join tokens that expired before a time.
func (t *Txn) TokensExpiredBefore(ms int64, limit int) (ids []string) {
	for r := range values(t.tokens.root(), nil) { // few: fsm bounds them
		if len(ids) == limit {
			break
		}
		if r.rec.ExpiresMs < ms {
			ids = append(ids, r.rec.Id)
		}
	}
	return ids
}

// ForgetToken removes a join token.
func (t *Txn) ForgetToken(id string) { t.tokens.removeRec([]byte(id)) }
