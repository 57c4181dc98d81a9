package flow

import "github.com/shuntcd/shunt/internal/delivery"

// Supersedes tells whether newer makes older needless: of the builds of one branch
// that still queue only the newest runs. A hotfix push is never skipped: each of
// them is somebody's answer to a broken production.
func Supersedes(newer, older delivery.Build) bool {
	return newer.Project == older.Project && newer.Ref == older.Ref &&
		newer.Lane == delivery.LaneMain && older.Lane == delivery.LaneMain &&
		older.Status == delivery.BuildQueued && newer.Number > older.Number
}

// Before is the order in which builds that wait for an environment's lock get it:
// hotfixes first, then the older build. Age is the sequence of ids, since clocks
// jump.
func Before(a, b delivery.Build) bool {
	if hotfix := a.Lane == delivery.LaneHotfix; hotfix != (b.Lane == delivery.LaneHotfix) {
		return hotfix
	}
	if a.ID != b.ID {
		return a.ID < b.ID
	}
	return a.Number < b.Number
}
