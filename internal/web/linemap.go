package web

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// The line map is drawn like a track diagram. Time goes to the right: each
// event (a build begins, production moves, a merge back) has a column of its
// own. develop is the uppermost track, master the one below it, and each hotfix
// runs on a track under master from the build where it left to the one where it
// joined. A build is a station, what is in production a plate on master, and a
// gate a semaphore: its arm lies (it waits), is raised (it was passed), or is
// crossed (it was refused).
//
// layoutMap is pure: the same lines give the same picture.

// Distances of the map, in pixels. Whatever can be clicked is at least 26 high
// and wide.
const (
	mapTop    = 40  // the develop track
	mapGate   = 44  // from develop down to its gates
	mapMaster = 92  // from develop down to master
	mapRow    = 58  // from master to the first hotfix, and from each to the next
	mapStep   = 40  // at least this from one column to the next
	mapEdge   = 30  // before the first column and behind the last
	mapHit    = 13  // half of what can be clicked
	mapLetter = 7.5 // width of a letter of a label
	mapName   = 18  // letters of a name that are shown
)

type lineMap struct {
	Width, Height int
	Tracks        []mapTrack
	Stops         []mapStop // in the order of time
	Names         []mapLabel
	Rows          []mapLabel // names of the tracks, drawn beside the map
	RowsWidth     int
}

// mapTrack goes through points; where it changes its height it bends.
type mapTrack struct {
	Class  string
	Points [][2]int
}

// mapStop is something with a place: a station, a plate, a gate, a merge.
type mapStop struct {
	Kind  string // build, plate, gate, merge, owed
	X, Y  int
	Label string
	State string // decides shape and tone
	Live  bool   // production runs it
	Href  string
	Title string
}

type mapLabel struct {
	X, Y  int
	Text  string
	Title string
}

// box is what a stop covers: left, top, right, bottom.
func (s mapStop) box() [4]int {
	switch s.Kind {
	case "gate":
		return [4]int{s.X - mapHit, s.Y - 28, s.X + mapHit, s.Y + 2}
	case "plate":
		half := max(mapHit, plateHalf(s.Label))
		return [4]int{s.X - half, s.Y - mapHit, s.X + half, s.Y + mapHit}
	case "build":
		half := max(mapHit, plateHalf(s.Label))
		return [4]int{s.X - half, s.Y - 28, s.X + half, s.Y + mapHit}
	default:
		return [4]int{s.X - mapHit, s.Y - mapHit, s.X + mapHit, s.Y + mapHit}
	}
}

func plateHalf(label string) int { return int(mapLetter*float64(len(label)))/2 + 5 }

// mapEvent takes a column, or two when a gate stands behind the station.
type mapEvent struct {
	at    time.Time
	kind  int // 0: build, 1: release, 2: merge; their order at one moment
	of    int // station, or the first debt of the merge
	build int64
	col   int
}

// hotfixLine is one hotfix: the builds of a branch until one is in production.
type hotfixLine struct {
	branch     string
	stations   []int
	base       int64
	row        int
	from, upto int // x
}

func layoutMap(in api.Lines) lineMap {
	step, edge := mapStep, mapEdge
	for _, s := range in.Stations {
		half := plateHalf(num(s.Number))
		step, edge = max(step, 2*half+4), max(edge, half+4)
	}
	events, cols := mapEvents(in)
	x := func(col int) int { return edge + col*step }
	at := func(kind, of int) (int, bool) {
		i := slices.IndexFunc(events, func(e mapEvent) bool { return e.kind == kind && e.of == of })
		if i < 0 {
			return 0, false
		}
		return x(events[i].col), true
	}
	plateX := map[int64]int{} // build in production -> x of its plate
	for _, e := range events {
		if e.kind == 1 {
			plateX[e.build] = x(e.col)
		}
	}
	master, end := mapTop+mapMaster, x(cols)
	m := lineMap{Width: end + edge, Rows: []mapLabel{{4, mapTop + 4, short(in.Branches.Integration), in.Branches.Integration}, {4, master + 4, short(in.Branches.Production), in.Branches.Production}}}
	m.Tracks = append(m.Tracks, mapTrack{"develop", [][2]int{{0, mapTop}, {end, mapTop}}}, mapTrack{"master", [][2]int{{0, master}, {end, master}}})

	hotfixes := hotfixLines(in, func(h *hotfixLine) {
		first, _ := at(0, h.stations[0])
		last := h.stations[len(h.stations)-1]
		from, ok := plateX[h.base]
		if h.from = from; !ok || from >= first { // it left before the map begins
			h.from = first - edge
		}
		h.upto, _ = at(0, last)
		if in.Stations[last].GateState != "" {
			h.upto += step
		}
		if px, ok := plateX[in.Stations[last].Number]; ok && px > h.upto {
			h.upto = px
		}
		name := short(hotfixName(h.branch))
		h.upto = max(h.upto, first-mapHit+int(mapLetter*float64(len([]rune(name))))+mapHit)
		m.Width = max(m.Width, h.upto+mapHit)
	})
	rows := 0
	y := make([]int, len(in.Stations))
	for i := range y {
		y[i] = mapTop
	}
	for _, h := range hotfixes {
		rows = max(rows, h.row+1)
		for _, i := range h.stations {
			y[i] = master + mapRow*(h.row+1)
		}
	}
	for _, h := range hotfixes {
		level := y[h.stations[0]]
		first, _ := at(0, h.stations[0])
		lastStation := h.stations[len(h.stations)-1]
		last, _ := at(0, lastStation)
		if in.Stations[lastStation].GateState != "" {
			last += step
		}
		points := [][2]int{{h.from, master}, {min(h.from+step, first), level}, {last, level}}
		if px, ok := plateX[in.Stations[lastStation].Number]; ok {
			points = append(points, [2]int{max(last, px-step), level}, [2]int{px, master})
		}
		m.Tracks = append(m.Tracks, mapTrack{"hotfix", points})
		m.Names = append(m.Names, mapLabel{first - mapHit, level + 26, short(hotfixName(h.branch)), h.branch})
	}
	if rows > 0 {
		m.Rows = append(m.Rows, mapLabel{4, master + mapRow + 4, "hotfixes", "hotfixes"})
	}
	m.Height = master + mapRow*rows + 34
	m.Stops = mapStops(in, events, x, step, y)
	for _, e := range events { // promotions of the main lane, and merges back
		switch {
		case e.kind == 0 && in.Stations[e.of].Lane == delivery.LaneMain:
			s := in.Stations[e.of]
			points := [][2]int{{x(e.col), mapTop}}
			if s.GateState != "" {
				points = append(points, [2]int{x(e.col + 1), mapTop + mapGate})
			}
			if px, ok := plateX[s.Number]; ok {
				points = append(points, [2]int{px, master})
			}
			if len(points) > 1 {
				m.Tracks = append(m.Tracks, mapTrack{"promotion", points})
			}
		case e.kind == 2:
			for _, d := range in.Debts {
				if px, ok := plateX[d.Number]; ok && d.ClosedAt.Equal(e.at) {
					m.Tracks = append(m.Tracks, mapTrack{"merged", [][2]int{{px, master}, {x(e.col), mapTop}}})
				}
			}
		}
	}
	owed := 0
	for _, d := range in.Debts {
		if !d.ClosedAt.IsZero() {
			continue
		}
		owed++
		if px, ok := plateX[d.Number]; ok {
			m.Tracks = append(m.Tracks, mapTrack{"owed", [][2]int{{px, master}, {end, mapTop}}})
		}
	}
	if owed > 0 {
		m.Stops = append(m.Stops, mapStop{Kind: "owed", X: end, Y: mapTop, Href: to(in.Project, "back-merges"), Title: count(owed, "back-merge is", "back-merges are") + " owed to " + in.Branches.Integration})
	}
	for _, r := range m.Rows {
		m.RowsWidth = max(m.RowsWidth, r.X+int(mapLetter*float64(len([]rune(r.Text))))+6)
	}
	return m
}

// mapEvents gives each event its column and tells how many columns there are.
func mapEvents(in api.Lines) (events []mapEvent, cols int) {
	for i, s := range in.Stations {
		if s.Branch != in.Branches.Production { // else it ran before Shunt came
			events = append(events, mapEvent{at: s.CreatedAt, of: i, build: s.Number})
		}
		if !s.ReleasedAt.IsZero() {
			events = append(events, mapEvent{at: s.ReleasedAt, kind: 1, of: i, build: s.Number})
		}
	}
	for i, d := range in.Debts {
		same := slices.ContainsFunc(in.Debts[:i], func(o api.BackMerge) bool { return o.ClosedAt.Equal(d.ClosedAt) })
		if !d.ClosedAt.IsZero() && !same {
			events = append(events, mapEvent{at: d.ClosedAt, kind: 2, of: i, build: d.Number})
		}
	}
	if len(in.Stations) > 0 { // merges from before the map begins are not shown
		begin := slices.MinFunc(in.Stations, func(a, b api.Station) int { return a.CreatedAt.Compare(b.CreatedAt) }).CreatedAt
		events = slices.DeleteFunc(events, func(e mapEvent) bool { return e.kind == 2 && e.at.Before(begin) })
	}
	slices.SortStableFunc(events, func(a, b mapEvent) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.kind, b.kind), cmp.Compare(a.build, b.build))
	})
	for i := range events {
		events[i].col = cols
		cols++
		if events[i].kind == 0 && in.Stations[events[i].of].GateState != "" {
			cols++
		}
	}
	return events, cols
}

func mapStops(in api.Lines, events []mapEvent, x func(int) int, step int, y []int) (stops []mapStop) {
	for _, e := range events {
		s := api.Station{}
		if e.kind < 2 {
			s = in.Stations[e.of]
		}
		switch e.kind {
		case 0:
			stops = append(stops, mapStop{Kind: "build", X: x(e.col), Y: y[e.of], Label: num(s.Number), State: string(s.Status), Href: buildURL(in.Project, s.Number), Title: fmt.Sprintf("Build %d on %s: %s. %s", s.Number, s.Branch, words(string(s.Status)), s.Subject)})
			if s.GateState != "" {
				level := y[e.of]
				if s.Lane == delivery.LaneMain {
					level += mapGate
				}
				stops = append(stops, mapStop{Kind: "gate", X: x(e.col) + step, Y: level, State: string(s.GateState), Href: to("a", s.GateID), Title: fmt.Sprintf("Gate of build %d: %s", s.Number, gateWord(s.GateState))})
			}
		case 1:
			title := fmt.Sprintf("Build %d went into production %s as %s", s.Number, s.ReleasedAt.UTC().Format(minute), s.Tag)
			live := s.Number == in.Running
			if live {
				title += ", and runs there now"
			}
			stops = append(stops, mapStop{Kind: "plate", X: x(e.col), Y: mapTop + mapMaster, Label: num(s.Number), Live: live, Href: buildURL(in.Project, s.Number), Title: title})
		case 2:
			stops = append(stops, mapStop{Kind: "merge", X: x(e.col), Y: mapTop, Href: to(in.Project, "back-merges"), Title: fmt.Sprintf("Production merged back into %s, %s", in.Branches.Integration, e.at.UTC().Format(minute))})
		}
	}
	return stops
}

func gateWord(s delivery.GateState) string {
	switch s {
	case delivery.GateOpen:
		return "waits for a person"
	case delivery.GatePromoted, delivery.GateRejected, delivery.GateExpired, delivery.GateCancelled:
	}
	return string(s)
}

// hotfixLines groups the stations of the hotfix lane and gives each group a
// track on which nothing else runs between where it left and where it joined.
func hotfixLines(in api.Lines, measure func(*hotfixLine)) (lines []hotfixLine) {
	current := map[string]int{} // branch -> its line that goes on
	for i, s := range in.Stations {
		if s.Lane != delivery.LaneHotfix {
			continue
		}
		at, ok := current[s.Branch]
		if !ok {
			at = len(lines)
			current[s.Branch] = at
			lines = append(lines, hotfixLine{branch: s.Branch, base: s.Base})
		}
		lines[at].stations = append(lines[at].stations, i)
		if !s.ReleasedAt.IsZero() {
			delete(current, s.Branch)
		}
	}
	var free []int // by row: x from which it is free
	for i := range lines {
		h := &lines[i]
		measure(h)
		h.row = slices.IndexFunc(free, func(until int) bool { return until < h.from })
		if h.row < 0 {
			h.row = len(free)
			free = append(free, 0)
		}
		free[h.row] = h.upto + 2*mapHit
	}
	return lines
}

// hotfixName is a hotfix's name without the prefix of its branch.
func hotfixName(branch string) string {
	if _, name, ok := strings.Cut(branch, "/"); ok && name != "" {
		return name
	}
	return branch
}

func short(name string) string {
	if r := []rune(name); len(r) > mapName {
		return string(r[:mapName-1]) + "…"
	}
	return name
}

// path is a track as SVG draws it: straight where it keeps its height, else an
// S that leaves and arrives level.
func (t mapTrack) path() string {
	var b strings.Builder
	for i, p := range t.Points {
		switch {
		case i == 0:
			fmt.Fprintf(&b, "M%d %d", p[0], p[1])
		case t.Points[i-1][1] == p[1]:
			fmt.Fprintf(&b, "H%d", p[0])
		default:
			before := t.Points[i-1]
			bend := (p[0] - before[0]) / 2
			fmt.Fprintf(&b, "C%d %d %d %d %d %d", before[0]+bend, before[1], p[0]-bend, p[1], p[0], p[1])
		}
	}
	return b.String()
}
