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
//
// The lists below say what this host calls, when and how often. What a plugin
// may rely on is with each type: another host may ask more often, or less.
//
// # The life of every plugin
//
//  1. The host starts a process for the plugin; a module runs in one of the
//     host's own. Sometimes that is for a look alone: to read the manifest, or
//     to start once more with access to the files that its options name. So
//     whatever costs time or leaves traces belongs in Configure.
//  2. The host reads the [Manifest], before anything else, and then every 3
//     seconds to see whether the process lives. No code of the author runs for
//     it.
//  3. [Configurer].Configure is called once in the life of an instance, before
//     any call below, and may take 30 seconds. An error keeps the plugin from
//     running: the host shows the reason and tries again later. Then
//     [Noter].Notes is called.
//  4. The calls of its kind follow, each with a deadline: 30 seconds for a
//     driver, 2 minutes for List, 5 seconds for a policy. Their order is in the
//     lists below.
//  5. A process that panics, ends, lets a deadline pass or gives no sign of
//     life is killed, and the plugin begins again at 1: at first after a tenth
//     of a second, then ever later, up to half a minute. Calls that are made
//     meanwhile fail at once and are not made up for, except as the lists below
//     say. The module of a scoring policy or a driver that panics only gets a
//     new instance, at 3.
//  6. When an operator reloads the plugin, the next instance runs through 1 to
//     3 and is tried before it is used. Two instances of a policy run beside
//     each other then. A driver is alone with its store: calls wait, those
//     under way may go on for 10 seconds, and the old process has ended before
//     the next one starts.
//  7. The process is killed, at the end of the service too. Nothing is called
//     before: what has to outlive the process is on disk when a call returns.
//
// # The calls of a driver
//
//  1. [Driver].Apply, for what waited in the host's log when the service
//     started.
//  2. [Driver].List, once that is done: the host brings records and files into
//     step, and Apply brings what is missing or too much. It is called again
//     after a batch was refused with [ErrInvalid], for the trial of a reload,
//     and when records are moved to or from the driver; not after a restart of
//     the driver alone.
//  3. [Driver].Apply, from one goroutine, with one batch of at most 10 000
//     operations at a time: at once when an image was stored or removed, else
//     when there were hits, as often as flush_interval says, at most once a
//     second.
//  4. [Heartbeater].Heartbeat, every 10 seconds, from another goroutine.
//  5. [NodeLister].Nodes, from any number of goroutines at once: when somebody
//     asks who has an image, and before an image is fetched where nodes share
//     records.
//
// A module is called by one of them at a time; List takes a page with each
// call.
//
// After a failure of Apply the same batch, with the same Seq, comes again until
// it is acknowledged, also to the next process: with ever longer pauses, up to
// 10 seconds, or at once when the driver is back. Nothing is lost and no
// request waits. After [ErrInvalid] the host takes it that the store is new or
// was restored: it begins a new Source and lists. A List that fails is called
// again in the same way. Without an answer of Nodes the image comes from the
// origin; a Heartbeat that fails is logged.
//
// # The calls of a scoring policy
//
//  1. [Scorer].Score, from one goroutine at a time, for every image that may
//     leave: no pinned one, and none that is read or too young, unless a prune
//     to a given size takes those too. A million images come in many calls.
//  2. The host asks when its list of who leaves next runs low or is 10 seconds
//     old and the cache is at least half full or the disk short; for each
//     prune; when an operator asks for the victims; and for the trial of a
//     reload, about any images.
//
// After an error, or a NaN in any of the answers, all of them are dropped and
// the least recently used images leave until the next question is answered.
// There is no state to restore.
//
// # The calls of a stateful policy
//
// All of them come from one goroutine.
//
//  1. [Snapshotter].Restore, if there is a snapshot that the same bytes with
//     the same options gave, and all events since are known. It is not called
//     at the start, but before the next call of Observe.
//  2. [Stateful].Observe, with at most [MaxBatch] events: those since the
//     snapshot, or without one EventCapacity and then the images in the order
//     of their last access, each as EventAdmitted and, if it had hits,
//     EventAccessed. From then on about once a second while something happens,
//     and before each call below.
//  3. [Stateful].Select, when less than half is left of the list of who leaves
//     next and the cache is at least half full or the disk short: for an eighth
//     of the cache. And twice at most for a prune. What the host refused is in
//     the Observe that follows.
//  4. [Snapshotter].Snapshot, each minute in which something happened, at the
//     end of the service, and when the policy is reloaded: the next instance
//     gets it.
//
// After an error of Observe, or one of Select that wraps [ErrUnavailable], the
// host does not know what the policy has seen. It begins again at 1, with the
// same instance if that lives: a policy bears the admission of an image that it
// has. So it does for an instance that is new, and when more events than
// [MaxBatch] have waited. After another error of Select, or keys that are not
// in the cache, least recently used images leave, and the policy is asked
// again. A Snapshot that fails is tried again a minute later. After a Restore
// that fails the instance is killed, and the next one sees the images as in 2.
//
// A policy that an operator tries beside the active one is called in the same
// way, as an instance of its own, about a cache that is only reckoned; it is
// never restored.
package sdk
