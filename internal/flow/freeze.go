package flow

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// The bounds of what may be planned: a wrong year is a mistake, and so is a script
// that plans the same again and again.
const (
	longestFreeze = 400 * 24 * time.Hour
	mostFreezes   = 50
)

// MayFreeze tells whether a freeze may be planned beside those that are ahead
// already; nil is yes. The error is a *delivery.Error. One that is asked for twice,
// by a second click or after a lost answer, is planned once.
func MayFreeze(f delivery.Freeze, ahead []delivery.Freeze, now time.Time) error {
	fail := func(kind delivery.Kind, why, next string) error {
		return &delivery.Error{Kind: kind, What: "cannot plan the freeze", Why: why, Next: next}
	}
	same := slices.IndexFunc(ahead, func(a delivery.Freeze) bool {
		return a.Ends.Equal(f.Ends) && (a.Begins.Equal(f.Begins) || a.Begins.Before(now) && !f.Begins.After(now))
	})
	switch length := f.Ends.Sub(f.Begins); {
	case strings.TrimSpace(f.Reason) == "":
		return fail(delivery.KindInvalid, "it needs a reason, which others will read", `Say why:  -m "reason"`)
	case !f.Ends.After(now):
		return fail(delivery.KindInvalid, "it would end at "+stamp(f.Ends)+", which has passed", "Say when promotions go on.")
	case length <= 0:
		return fail(delivery.KindInvalid, fmt.Sprintf("it would end at %s, and not begin before %s", stamp(f.Ends), stamp(f.Begins)), "Say first when it begins, then when it ends.")
	case length > longestFreeze:
		return fail(delivery.KindInvalid, fmt.Sprintf("it would last %d days, and at most %d are possible", length/(24*time.Hour), longestFreeze/(24*time.Hour)), "A hold lasts until a person releases it:  shunt hold "+word(f.Project)+` -m "reason"`)
	case same >= 0:
		return fail(delivery.KindConflict, fmt.Sprintf("freeze %d is for the same time", ahead[same].ID), "See:  shunt freeze list "+word(f.Project))
	case len(ahead) >= mostFreezes:
		return fail(delivery.KindRefused, fmt.Sprintf("%d are planned already", len(ahead)), "End one that is not needed:  shunt freeze list "+word(f.Project))
	}
	return nil
}

// Frozen finds the freeze for which promotions of the main lane wait at a moment:
// of several, the one that ends last. nil: they do not wait for any.
func Frozen(freezes []delivery.Freeze, now time.Time) (last *delivery.Freeze) {
	for i, f := range freezes {
		if f.State(now) == delivery.FreezeActive && (last == nil || f.Ends.After(last.Ends)) {
			last = &freezes[i]
		}
	}
	return last
}

// FreezeWords says of the main lane how long it is frozen, why and by whom.
func FreezeWords(f delivery.Freeze) string {
	return fmt.Sprintf("frozen until %s: %s (%s)", stamp(f.Ends), clean(f.Reason), clean(f.By))
}

func refuseFrozen(f delivery.Freeze) *Refusal {
	return &Refusal{
		Why:  "promotions of the main lane are " + FreezeWords(f),
		Mend: []string{fmt.Sprintf(`shunt freeze end %s %d -m "why"`, word(f.Project), f.ID)},
		Next: "It ends by itself, and a hotfix ships all the same. To end it now:",
	}
}
