// Package sdk says what an imgcache-host plugin is: a [Driver], which keeps
// the records of cached images, or a policy, which advises what is evicted.
// A policy has one of two forms, [Scorer] or [Stateful], never both.
//
// The package imports the standard library only. How a plugin is run is the
// business of its neighbours: package serve runs one as a process that speaks
// gRPC, package guest exports one from a WebAssembly module, and package
// sdktest holds the conformance suites that every implementation passes at
// every layer.
//
// Plugins advise, the host decides. The host validates every answer, calls
// with a deadline, and goes on without the plugin when it fails: a policy is
// replaced by least-recently-used order, a driver by the host's record log,
// which is replayed exactly once when the driver returns.
package sdk
