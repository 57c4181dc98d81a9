package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
)

// Shop is the sample web shop.
type Shop struct {
	pages    *template.Template
	products []Product
	carts    map[int][]int
	labels   map[string]string // what it says of itself at /version
}

// Product is something that the shop sells, or no longer does: then it has no price.
type Product struct {
	ID    int    `json:"id"`
	Name  string `json:"name"`
	About string `json:"about"`
	Price *Price `json:"price"`
}

// Price is an amount of money, in cents.
type Price struct {
	Cents int64 `json:"cents"`
}

// String is the price as people write it.
func (p Price) String() string { return fmt.Sprintf("%d.%02d €", p.Cents/100, p.Cents%100) }

// Amount is String under the name that templates use.
func (p Price) Amount() string { return p.String() }

// Cart is what a customer is about to buy.
type Cart struct {
	ID    int
	Items []Product
}

// Total is the sum of what has a price.
func (c Cart) Total() string {
	var sum Price
	for _, i := range c.Items {
		if i.Price != nil {
			sum.Cents += i.Price.Cents
		}
	}
	return sum.String()
}

// page is what a template gets.
type page struct {
	Title    string
	Build    string
	Products []Product
	Product  Product
	Cart     Cart
}

// NewShop makes a shop of its files: catalog.json, carts.json and templates.
func NewShop(f files, labels map[string]string) (*Shop, error) {
	s := &Shop{labels: labels, pages: template.New("shop")}
	if err := json.Unmarshal(f["catalog.json"], &s.products); err != nil {
		return nil, fmt.Errorf("catalog.json: %w", err)
	}
	if err := json.Unmarshal(f["carts.json"], &s.carts); err != nil {
		return nil, fmt.Errorf("carts.json: %w", err)
	}
	for name, text := range f {
		if short, ok := strings.CutPrefix(name, "templates/"); ok && strings.HasSuffix(name, ".html") {
			if _, err := s.pages.New(short).Parse(string(text)); err != nil {
				return nil, fmt.Errorf("template: %w", err)
			}
		}
	}
	for _, needed := range []string{"home.html", "product.html", "cart.html"} {
		if s.pages.Lookup(needed) == nil {
			return nil, fmt.Errorf("templates/%s is missing", needed)
		}
	}
	return s, nil
}

// Handler serves the shop.
func (s *Shop) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.labels)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		s.render(w, "home.html", page{Title: "All for your pet", Products: s.products})
	})
	mux.HandleFunc("GET /product/{id}", func(w http.ResponseWriter, r *http.Request) {
		if p, ok := s.product(r.PathValue("id")); ok {
			s.render(w, "product.html", page{Title: p.Name, Product: p})
			return
		}
		notFound(w)
	})
	mux.HandleFunc("GET /cart/{id}", func(w http.ResponseWriter, r *http.Request) {
		if c, ok := s.cart(r.PathValue("id")); ok {
			s.render(w, "cart.html", page{Title: "Your cart", Cart: c})
			return
		}
		notFound(w)
	})
	mux.HandleFunc("GET /{page}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("page") + ".html"
		if s.pages.Lookup(name) == nil || name == "layout.html" {
			notFound(w)
			return
		}
		s.render(w, name, page{Title: r.PathValue("page"), Products: s.products})
	})
	return mux
}

func (s *Shop) product(id string) (Product, bool) {
	n, err := strconv.Atoi(id)
	for _, p := range s.products {
		if err == nil && p.ID == n {
			return p, true
		}
	}
	return Product{}, false
}

func (s *Shop) cart(id string) (Cart, bool) {
	n, err := strconv.Atoi(id)
	ids, ok := s.carts[n]
	if err != nil || !ok {
		return Cart{}, false
	}
	c := Cart{ID: n}
	for _, id := range ids {
		if p, ok := s.product(strconv.Itoa(id)); ok {
			c.Items = append(c.Items, p)
		}
	}
	return c, true
}

// render fills a template into a buffer first, so that a template that fails
// half-way is a clean 500, which is what the demo's production suffers from.
func (s *Shop) render(w http.ResponseWriter, name string, p page) {
	p.Build = s.labels["build"]
	var b bytes.Buffer
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := s.pages.ExecuteTemplate(&b, name, p); err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		_ = template.Must(template.New("error").Parse("<!doctype html><title>Error 500</title><h1>Something is broken</h1><p>{{.}}</p>\n")).Execute(w, err.Error())
		return
	}
	_, _ = b.WriteTo(w)
}

func notFound(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusNotFound)
	_, _ = w.Write([]byte("<!doctype html><title>Not found</title><h1>There is no such page</h1>\n"))
}
