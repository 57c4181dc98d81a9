package store

import "time"

// SetPatience sets how long a write transaction may be silent, and returns how
// long it was.
func (s *Store) SetPatience(d time.Duration) (before time.Duration) {
	before, s.dialect.patience = s.dialect.patience, d
	return before
}
