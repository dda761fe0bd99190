package sdktest

import "sync"

// The sentences of package sdk that the cases of drivers hold them to, word for
// word.
const (
	listAll     = "List calls yield with all entries, in batches of any size and in any order, each id once."
	listSees    = "It sees every batch that was applied before the call."
	listStops   = "An error of yield ends the listing and is returned."
	listSlice   = "The slice belongs to the driver again when yield returns."
	listEmpty   = "An empty store yields nothing."
	concurrency = "Methods may be called concurrently, List with Apply too; Apply is called by one goroutine at a time."
	deadline    = "Every call has a deadline, which the driver must respect."

	applyWhole  = "Apply carries out a batch wholly or not at all, and returns nil only when its effect is durable against a crash of the plugin."
	applyOnce   = "Exactly once: a driver stores the last Seq of each Source together with the effect."
	applyRepeat = "A batch at or below it is acknowledged without effect."
	applyGap    = "A batch more than one above it (the last Seq of an unknown Source is 0) is a gap: Apply changes nothing and returns [ErrInvalid]."
	applyOrder  = "Batch is a sequence of operations, carried out in order, with its position in the record log of one host."
	invalid     = "Validate returns an error, wrapping [ErrInvalid], for a batch that no driver may apply: " +
		"one without source, with sequence 0, an unknown kind, an id that is empty or longer than [MaxIDLen], a negative size, or a source or id that is not UTF-8."

	putStores   = "OpPut stores Entry."
	putReplaces = "When the driver has a record of that id with the same Version, its Hits are kept and the later LastAccessed wins; " +
		"otherwise Entry becomes the record."
	deletes      = "OpDelete removes the record of Entry.ID."
	deleteAbsent = "An absent id is no error."
	touches      = "OpTouch adds Entry.Hits to the hits of Entry.ID and moves its LastAccessed forward, never back, to Entry.LastAccessed."
	touchAbsent  = "An absent id is no error and creates nothing."
	exact        = "Ids and versions are compared byte for byte, times are kept to the microsecond or better, numbers to 63 bits."
	optional     = "The host calls an optional method only when its capability is declared."
)

// The sentences that the cases of policies hold them to.
const (
	manifestConstant = "It is constant: it must not depend on configuration or environment."
	manifestGrease   = "A host ignores those it does not know."

	scorePure   = "Scorer is the scoring form of a policy: a pure function of one record, the configuration and now."
	scoreEach   = "Score writes one score for each record into scores, which has the length of records."
	anyRecord   = "Each field may have any value of its type."
	ignoreFlags = "A policy ignores bits that it does not know."
	maxBatch    = "MaxBatch is the largest number of records or events in one call."

	selectEnough = "Select proposes images, first to leave first, until their sizes add up to need bytes or the policy knows no more; it returns at most limit keys."
	selectOnly   = "It proposes only: an object stays in the policy's state until an EventRemoved names it, and a proposal that the host refuses comes back as EventRefused."
	observe      = "Observe takes events, oldest first."
	admits       = "EventAdmitted: the image Key of Size bytes was committed."
	removes      = "EventRemoved: the image left the cache; Reason says why."
	refuses      = "EventRefused: the host did not evict an image that Select proposed: it is pinned, being read or too young."
	ignoreKinds  = "A policy ignores kinds that it does not know."
	anyEvent     = "A policy bears fields with any value of their types, and keys that it does not know."
	eventsAlone  = "What it answers depends on its configuration, the events and the calls before alone."

	restored      = "A policy restored from a snapshot behaves exactly like the one that made it."
	brokenRefused = "After an error, which wraps [ErrInvalid] for bytes that are no snapshot of this policy, the state is unspecified and the host discards the instance."
)

// Sentence returns the sentence of package sdk that a case of a suite holds
// plugins to, "" for an unknown name of a case.
func Sentence(name string) string { return sentences()[name] }

// sentences returns those of all cases, by their names.
var sentences = sync.OnceValue(func() map[string]string {
	all := map[string]string{manifestValid: manifestConstant, manifestGreased: manifestGrease}
	for _, c := range driverCases {
		all[c.name] = c.sentence
	}
	for _, c := range durableCases {
		all[c.name] = c.sentence
	}
	for _, c := range scorerCases {
		all[c.name] = c.sentence
	}
	for _, c := range statefulCases {
		all[c.name] = c.sentence
	}
	return all
})
