package sdktest

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

	applyWhole  = "Apply carries out a batch, wholly or not at all, and returns nil only when its effect is durable against a crash of the plugin."
	applyOnce   = "Exactly once: a driver stores the last Seq of each Source together with the effect."
	applyRepeat = "A batch at or below it is acknowledged without effect."
	applyGap    = "A batch more than one above it (the last Seq of an unknown Source is 0) is a gap: Apply changes nothing and returns [ErrInvalid]."
	applyOrder  = "Batch is a sequence of operations, carried out in order, with the place that it has in the record log of one host."
	invalid     = "Validate reports, wrapping [ErrInvalid], what makes the batch one that no driver may apply: " +
		"no source, sequence 0, an unknown kind, an id that is empty or longer than [MaxIDLen], a negative size, a source or id that is no UTF-8."

	putStores   = "OpPut stores Entry."
	putReplaces = "When the driver has a record of that id with the same Version, its Hits are kept and the later LastAccessed wins; " +
		"otherwise the record is Entry as it stands."
	deletes      = "OpDelete removes the record of Entry.ID."
	deleteAbsent = "An absent id is no error."
	touches      = "OpTouch adds Entry.Hits to the hits of Entry.ID and moves its LastAccessed forward, never back, to Entry.LastAccessed."
	touchAbsent  = "An absent id is no error and creates nothing."
	exact        = "Ids and versions are compared byte for byte, times are kept to the microsecond or better, numbers to 63 bits."
	optional     = "The host calls an optional method only when its capability is declared."
)

// Sentence returns the sentence of package sdk that a case of [Driver] or
// [Durable] holds drivers to, "" for an unknown name of a case.
func Sentence(name string) string {
	for _, c := range driverCases {
		if c.name == name {
			return c.sentence
		}
	}
	for _, c := range durableCases {
		if c.name == name {
			return c.sentence
		}
	}
	return ""
}
