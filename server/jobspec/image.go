package jobspec

import (
	"regexp"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// Drivers of tasks, as RoleSpec.Driver names them.
const (
	DriverProcess   = "process"
	DriverContainer = "container"
)

// imagePattern is a reference to an image: a registry with its port perhaps, a path, a tag
// and a digest perhaps.
var imagePattern = regexp.MustCompile(`^([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$`)

// driver checks what runs the tasks, and of which image.
func (c *checker) driver(path string, r *pb.RoleSpec) {
	switch {
	case r.Driver != "" && r.Driver != DriverProcess && r.Driver != DriverContainer:
		c.add(path+".driver", "there is no driver %s", quoted(r.Driver)).Hint("use process or container")
	case r.Driver == DriverContainer && r.Image == "":
		c.add(path+".image", "a task in a container needs an image").Hint("write one such as docker.io/library/python:3.12, best with its @sha256: digest")
	case r.Driver == DriverProcess && r.Image != "":
		c.add(path+".driver", "a process of the node has no image").Hint("leave image out, or write driver: container")
	case r.Image == "":
	case len(r.Image) > ImageBytesMax || !imagePattern.MatchString(r.Image):
		e := c.add(path+".image", "%s is not an image", quoted(r.Image))
		if strings.Contains(r.Image, "@") {
			e.Hint("a digest is written as name@sha256: and 64 digits 0-9a-f")
		} else {
			e.Hint("write such as docker.io/library/python:3.12, or python@sha256:DIGEST")
		}
	}
}

// workdirAt is a working directory that was made absolute by the job file's folder.
type workdirAt struct {
	role  *pb.RoleSpec
	field string
	line  int
}

// ofImages refuses working directories by the job file's folder where an image has its own.
func (d *decoder) ofImages() {
	for _, w := range d.relative {
		if w.role.Image != "" {
			d.add(w.field, w.line, "the folder of the job file is none of the image's").Hint("write an absolute path in the image, or leave workdir out")
		}
	}
}
