package runlog

import (
	"strconv"
	"strings"
)

// style is the state that SGR sequences change. Colours are CSS class
// suffixes, such as 1 or x123; empty is the default colour.
type style struct {
	bold, dim, italic, underline, inverse, strike bool
	fg, bg                                        string
}

func (s style) class() string {
	var list []string
	for _, c := range []struct {
		on   bool
		name string
	}{
		{s.bold, "bold"},
		{s.dim, "dim"},
		{s.italic, "italic"},
		{s.underline, "underline"},
		{s.inverse, "inverse"},
		{s.strike, "strike"},
		{s.fg != "", "fg-" + s.fg},
		{s.bg != "", "bg-" + s.bg},
	} {
		if c.on {
			list = append(list, c.name)
		}
	}
	return strings.Join(list, " ")
}

// apply takes the parameters of one SGR sequence (ECMA-48 8.3.117, and ISO
// 8613-6 for colours with colons). Unknown ones change nothing; concealed text
// (8) is shown on purpose.
func (s *style) apply(params string) {
	fields := strings.Split(params, ";")
	for i := 0; i < len(fields); i++ {
		code, sub, colon := strings.Cut(fields[i], ":")
		n, _ := strconv.Atoi(code) // an empty one is 0, as on a terminal
		if code != "" && n == 0 && strings.Trim(code, "0") != "" {
			continue // overflow
		}
		switch n {
		case 38, 48:
			var colour string
			var used int
			if colon {
				colour = colonColour(sub)
			} else {
				colour, used = listColour(fields[i+1:])
			}
			i += used
			if colour != "" && n == 38 {
				s.fg = colour
			} else if colour != "" {
				s.bg = colour
			}
		case 4:
			s.underline = sub != "0"
		default:
			s.set(n)
		}
	}
}

func (s *style) set(n int) {
	switch {
	case n == 0:
		*s = style{}
	case n == 1:
		s.bold = true
	case n == 2:
		s.dim = true
	case n == 3:
		s.italic = true
	case n == 7:
		s.inverse = true
	case n == 9:
		s.strike = true
	case n == 21 || n == 22:
		s.bold, s.dim = false, false
	case n == 23:
		s.italic = false
	case n == 24:
		s.underline = false
	case n == 27:
		s.inverse = false
	case n == 29:
		s.strike = false
	case n >= 30 && n <= 37:
		s.fg = strconv.Itoa(n - 30)
	case n == 39:
		s.fg = ""
	case n >= 40 && n <= 47:
		s.bg = strconv.Itoa(n - 40)
	case n == 49:
		s.bg = ""
	case n >= 90 && n <= 97:
		s.fg = strconv.Itoa(n - 90 + 8)
	case n >= 100 && n <= 107:
		s.bg = strconv.Itoa(n - 100 + 8)
	}
}

// listColour reads the parameters behind 38 or 48: 5;N or 2;R;G;B.
func listColour(fields []string) (colour string, used int) {
	switch {
	case len(fields) >= 2 && fields[0] == "5":
		return indexed(fields[1]), 2
	case len(fields) >= 4 && fields[0] == "2":
		return nearest(fields[1], fields[2], fields[3]), 4
	}
	return "", len(fields) // cut short: nothing behind it can be trusted
}

// colonColour reads 5:N, 2:R:G:B or 2:SPACE:R:G:B.
func colonColour(sub string) string {
	f := strings.Split(sub, ":")
	switch {
	case f[0] == "5" && len(f) == 2:
		return indexed(f[1])
	case f[0] == "2" && len(f) == 4:
		return nearest(f[1], f[2], f[3])
	case f[0] == "2" && len(f) >= 5:
		return nearest(f[2], f[3], f[4])
	}
	return ""
}

func component(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	if s == "" {
		return 0, true
	}
	return n, err == nil && n >= 0 && n <= 255
}

func indexed(s string) string {
	n, ok := component(s)
	switch {
	case !ok:
		return ""
	case n < 16:
		return strconv.Itoa(n)
	}
	return "x" + strconv.Itoa(n)
}

// nearest maps a colour to the closest of the 6x6x6 cube (16 to 231) and the
// 24 greys (232 to 255), whose values are those of xterm.
func nearest(rs, gs, bs string) string {
	r, ok1 := component(rs)
	g, ok2 := component(gs)
	b, ok3 := component(bs)
	if !ok1 || !ok2 || !ok3 {
		return ""
	}
	level := func(v int) (index, value int) {
		switch {
		case v < 48:
			return 0, 0
		case v < 115:
			return 1, 95
		}
		i := (v - 35) / 40
		return i, 55 + 40*i
	}
	distance := func(r2, g2, b2 int) int { return (r-r2)*(r-r2) + (g-g2)*(g-g2) + (b-b2)*(b-b2) }
	ri, rv := level(r)
	gi, gv := level(g)
	bi, bv := level(b)
	best, n := distance(rv, gv, bv), 16+36*ri+6*gi+bi
	grey := min(23, max(0, ((r+g+b)/3-3)/10))
	if v := 8 + 10*grey; distance(v, v, v) < best {
		n = 232 + grey
	}
	return "x" + strconv.Itoa(n)
}
