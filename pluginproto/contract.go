package pluginproto

import "embed"

// Contract has the files with which a plugin in another language than Go is
// built.
//
//go:embed abi/ABI.md abi/imgcache_policy.h imgcache/plugin/v1/*.proto
var Contract embed.FS
