// Package sdktest holds the conformance suites of plugins: [Driver] and
// [Durable] for drivers, [Scorer] and [Stateful] for policies. Each says a
// sentence of the contract in package sdk as a named case. The same suite is
// run against an implementation in process, behind gRPC and inside
// WebAssembly, so that every layer is held to the same words.
//
// A suite takes a *testing.T:
//
//	func TestConformance(t *testing.T) {
//		sdktest.Driver(t, func(t *testing.T) sdktest.Subject {
//			return sdktest.Subject{Driver: open(t, t.TempDir())}
//		})
//	}
//
// or, outside of a test, a [Report]; package host/conformance, which is the
// command `imgcache-host plugin check`, does so with a process behind gRPC. In the
// tests of this package the table in process_test.go has each driver that ships,
// to be held to the contract at that layer.
//
// The package also has [Memory], the reference driver, and [Flaky], which
// makes a driver fail in the ways in which processes fail.
package sdktest
