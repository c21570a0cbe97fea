package api

import (
	"log/slog"

	pb "llmos/proto/llmos/v1"
)

// join serves JoinService.
type join struct {
	pb.UnimplementedJoinServiceServer
	b   Backend
	log *slog.Logger
}
