package config

import (
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
)

// didYouMean returns a sentence, with a space in front, that proposes the
// known name nearest to given, or "" when none is near.
func didYouMean(given string, known []string) string {
	if name := nearest(given, known); name != "" {
		return fmt.Sprintf(" Did you mean %q?", name)
	}
	return ""
}

// nearest returns the known name that given most likely stands for: the same
// but for case and separators, a few letters away, or a part of it.
func nearest(given string, known []string) string {
	plain := strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(given))
	best, bestDistance := "", max(2, len(given)/3)+1
	for _, name := range known {
		candidate := strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(name))
		if candidate == plain {
			return name
		}
		if d := levenshtein.Distance(plain, candidate, nil); d < bestDistance && d < len(candidate) {
			best, bestDistance = name, d
		}
	}
	if best != "" || len(plain) < 4 {
		return best
	}
	for _, name := range known {
		if strings.Contains(strings.ReplaceAll(name, "_", ""), plain) {
			return name
		}
	}
	return ""
}

// alternatives joins words to a list that reads well: "a", "b" or "c".
func alternatives(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	if len(quoted) < 2 {
		return strings.Join(quoted, "")
	}
	last := len(quoted) - 1
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}
