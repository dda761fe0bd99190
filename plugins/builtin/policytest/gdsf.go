package policytest

import (
	"slices"

	"github.com/imgcache/imgcache-host/sdk"
)

// GDSF searches all images for the lowest priority. cost is what a miss
// costs.
func GDSF(cost func(Request) float64) Textbook { return &greedyDual{cost: cost} }

type greedyDual struct {
	cost   func(Request) float64
	age    float64 // L of the paper
	images []prized
}

type prized struct {
	Request
	frequency float64
	priority  float64
}

func (g *greedyDual) find(key sdk.Key) int {
	return slices.IndexFunc(g.images, func(im prized) bool { return im.Key == key })
}

func (g *greedyDual) prize(im *prized) {
	im.priority = g.age + im.frequency*g.cost(im.Request)/float64(im.Size)
}

// lowest is the index of the image that leaves next.
func (g *greedyDual) lowest() int {
	low := 0
	for i, im := range g.images {
		best := g.images[low]
		if im.priority < best.priority || im.priority == best.priority && im.Key < best.Key {
			low = i
		}
	}
	return low
}

// Resize implements [Textbook].
func (g *greedyDual) Resize(uint64) {}

// Access implements [Textbook].
func (g *greedyDual) Access(key sdk.Key) bool {
	i := g.find(key)
	if i < 0 {
		return false
	}
	g.images[i].frequency++
	g.prize(&g.images[i])
	return true
}

// Admit implements [Textbook].
func (g *greedyDual) Admit(r Request) {
	im := prized{Request: r, frequency: 1}
	g.prize(&im)
	g.images = append(g.images, im)
}

// Next implements [Textbook].
func (g *greedyDual) Next() (Request, bool) {
	if len(g.images) == 0 {
		return Request{}, false
	}
	return g.images[g.lowest()].Request, true
}

// Stay implements [Textbook]: as if the image left and came back with what was
// known of it.
func (g *greedyDual) Stay(key sdk.Key) {
	im := &g.images[g.find(key)]
	g.age = im.priority
	g.prize(im)
}

// Leave implements [Textbook]: who is evicted before its turn makes nobody
// older.
func (g *greedyDual) Leave(key sdk.Key, why sdk.Reason) {
	i := g.find(key)
	if why == sdk.ReasonEvicted && i == g.lowest() {
		g.age = g.images[i].priority
	}
	g.images = slices.Delete(g.images, i, i+1)
}
