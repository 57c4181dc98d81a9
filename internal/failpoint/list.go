// Package failpoint marks the places in which a crash, an error or a delay would
// hurt most: around every effect. In a normal binary a point is nothing; the
// fault suite builds with the tag `failpoints` and names one point and a fault.
//
// The list is the one place that says which effects there are. A test fails when
// a listed point is never reached by the suite's story.
package failpoint

// Positions around an effect, in the order in which they are passed.
const (
	BeforeIntent = "before_intent" // nothing is written down yet
	AfterIntent  = "after_intent"  // the intent is durable, nothing was done
	BeforeRecord = "before_record" // it was done, nobody has written down how it ended
	AfterRecord  = "after_record"  // its outcome is durable
)

// Effects lists every effect that the suite's story passes, with its positions.
func Effects() map[string][]string {
	around := []string{BeforeIntent, AfterIntent, BeforeRecord, AfterRecord}
	return map[string][]string{
		"hook":         {BeforeIntent, AfterRecord}, // a webhook is accepted: before it is remembered, before the 2xx
		"sync":         {BeforeIntent, AfterRecord}, // refs were read: before and after they are acted on
		"create_build": {BeforeIntent, AfterRecord},
		"lease":        {BeforeIntent, AfterRecord},
		"job":          around, // a job of the pipeline: intent is its attempt's row
		"artifact":     {BeforeIntent, AfterRecord},
		"tag":          around,
		"publish":      around,
		"up":           around,
		"gate":         {BeforeIntent, AfterRecord},
		"decide":       {BeforeIntent, AfterRecord},
		"down":         around,
		"deploy":       around,
		"release":      around,
		"mail":         {BeforeRecord, AfterRecord},
		"end":          {BeforeIntent, AfterRecord}, // the drive ends and gives the lease back
	}
}

// Names lists every point.
func Names() (names []string) {
	for effect, positions := range Effects() {
		for _, p := range positions {
			names = append(names, effect+"."+p)
		}
	}
	return names
}
