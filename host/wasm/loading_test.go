package wasm

import "testing"

// TestBoundMemory: who has more than is allowed is told of it, once.
func TestBoundMemory(t *testing.T) {
	over := make(chan bool, 2)
	stop := boundMemory(1, func() { over <- true })
	<-over // the deadline of the test bounds it
	stop()
	stop = boundMemory(memory()+1<<40, func() { over <- true })
	stop()
	if len(over) > 0 {
		t.Error("it is told of a limit that is far away, or twice")
	}
}
