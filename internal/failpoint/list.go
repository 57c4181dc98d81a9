// Package failpoint marks the places in which a crash, an error or a delay would
// hurt most: around every effect. In a normal binary a point is nothing; the
// fault suite builds with the tag `failpoints` and names one point and a fault.
//
// The list is the one place that says which effects there are and which points
// each has: passing another one is a bug that ends the process, and the suite fails
// when no story of it reaches a listed one.
//
// An effect has six points. Where two of them are the same moment, only one is
// listed; the shapes below say which.
package failpoint

import "slices"

// Positions around an effect, in the order in which they are passed.
const (
	BeforeIntent = "before_intent" // nothing is written down yet
	AfterIntent  = "after_intent"  // the intent is durable, nothing was prepared
	BeforeCall   = "before_call"   // all is prepared; the next thing is the call itself
	BeforeRecord = "before_record" // after the call: nobody has written down how it ended
	AfterRecord  = "after_record"  // its outcome is durable
	BeforeAnswer = "before_answer" // whoever waits for it is not told yet
)

// Shapes of effects.
const (
	// around: something outside is changed, and rows before and after say so.
	around = iota
	// rows: intent, call and record are one transaction, and the call is its commit.
	rows
	// click: rows, and a person or a forge waits for the answer.
	click
	// look: only a question, whose answer is not recorded by itself.
	look
	// file: what is written is its own record, once it has its name or is synced.
	file
)

func shaped(shape int) []string {
	switch shape {
	case rows:
		return []string{BeforeIntent, BeforeCall, AfterRecord}
	case click:
		return []string{BeforeIntent, BeforeCall, AfterRecord, BeforeAnswer}
	case look:
		return []string{BeforeCall, BeforeRecord}
	case file:
		return []string{BeforeCall, BeforeRecord, AfterRecord}
	}
	return []string{BeforeIntent, AfterIntent, BeforeCall, BeforeRecord, AfterRecord, BeforeAnswer}
}

// Effects lists every effect with its points.
func Effects() map[string][]string {
	shapes := map[string]int{
		"hook":         click, // a webhook is accepted
		"sync":         file,  // refs are read and acted on; the builds are their record
		"create_build": rows,
		"lease":        rows,
		"job":          around, // a job of the pipeline: the intent is its attempt's row
		"log":          file,   // a log is copied from the runner
		"artifact":     look,   // bytes are stored; the job's record names them
		"tag":          around,
		"publish":      around,
		"probe":        look, // a lost answer of one of the three around is looked up
		"up":           around,
		"gate":         click, // it is opened; its driver waits
		"promote":      click,
		"reject":       click,
		"cancel":       click,
		"rerun":        click,
		"resolve":      click,
		"rollback":     click,
		"down":         around,
		"permit":       rows,   // all is compared again, and the environment's lock taken
		"deploy":       around, // the intent is its permit
		"release":      around, // the production tag and branch, in one push
		"back_merge":   rows,   // a debt is found paid
		"end":          rows,   // the drive ends and gives the lease back
		"confirm":      click,  // a restored server is let work
	}
	out := map[string][]string{
		"verify":  {AfterIntent, BeforeCall, BeforeRecord},                // a deployment is looked up; its row is intent and record
		"mail":    {BeforeCall, BeforeRecord, AfterRecord},                // the intent is in the transaction of what it tells
		"backup":  {BeforeIntent, BeforeCall, BeforeRecord, BeforeAnswer}, // its record is the name that the whole file gets
		"restore": {BeforeCall, BeforeRecord, BeforeAnswer},
		"migrate": {BeforeIntent, BeforeCall, AfterRecord}, // each migration is a transaction
	}
	for effect, shape := range shapes {
		out[effect] = shaped(shape)
	}
	return out
}

// Names lists every point, sorted.
func Names() (names []string) {
	for effect, positions := range Effects() {
		for _, p := range positions {
			names = append(names, effect+"."+p)
		}
	}
	slices.Sort(names)
	return names
}
