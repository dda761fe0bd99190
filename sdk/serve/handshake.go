package serve

import (
	goplugin "github.com/hashicorp/go-plugin"

	"github.com/imgcache/imgcache-host/sdk"
)

// Handshake is what host and plugin agree on before the first call. The
// cookie keeps a plugin that is started by hand from waiting for a host; it is
// no secret. ProtocolVersion counts incompatible versions of the contract.
var Handshake = goplugin.HandshakeConfig{
	ProtocolVersion:  sdk.Protocol,
	MagicCookieKey:   "IMGCACHE_PLUGIN",
	MagicCookieValue: "5d0e2d1c-imgcache-host-plugin",
}

// PluginName is the one name under which go-plugin dispenses the services.
const PluginName = "imgcache"

// LifelineFD is the descriptor of a pipe that the host keeps open. A plugin
// exits when it reads its end, so that it never outlives the host.
const LifelineFD = 3

// LifelineEnv is set when there is a lifeline.
const LifelineEnv = "IMGCACHE_LIFELINE"

// MaxMessage bounds a gRPC message in bytes. The largest ones that a host
// sends are frames of 3 MiB and batches of 5; gRPC's own limit of 4 MiB would
// refuse the latter.
const MaxMessage = 64 << 20

// Window is how many bytes of a message one side of gRPC sends before it waits
// for the other to have read some: more than a frame or a batch has, because
// waiting doubles the time that a million records take.
const Window = 8 << 20
