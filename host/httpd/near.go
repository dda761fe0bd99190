package httpd

import (
	"net"
	"net/http"
)

// nearBuffer is the send buffer of a hit whose client is on this machine, in
// bytes. What is sent is then still in the processor's cache when the client
// takes it; with the megabytes to which the kernel lets a buffer grow it comes
// from memory again. Over a network so small a buffer would bound the rate of a
// far client, and one that follows a fill wants more room. It is the most that
// Linux grants unless it is told otherwise.
const nearBuffer = 208 << 10

// keepNear sets that buffer for the connection of r, if it is of this machine.
func keepNear(r *http.Request) {
	if t := tcp(r); t != nil && loopback(t.RemoteAddr()) {
		_ = t.SetWriteBuffer(nearBuffer) // an attempt
	}
}

func loopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}
