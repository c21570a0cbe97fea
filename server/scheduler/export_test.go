package scheduler

// Thorough is the policy with every search for victims gone through.
func Thorough(p Policy) Policy {
	p.thorough = true
	return p
}
