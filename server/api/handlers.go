package api

import (
	"log/slog"

	pb "llmos/proto/llmos/v1"
)

// cluster serves ClusterService.
type cluster struct {
	pb.UnimplementedClusterServiceServer
	b   Backend
	log *slog.Logger
}
