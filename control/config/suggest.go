package config

import (
	"strings"
	"unicode/utf8"
)

// longestTypo is the length in bytes above which nothing is taken for a mistyped name.
const longestTypo = 64

// nearest is the choice that s is most likely a mistyping of, or "". Of equally near ones it is the first.
func nearest(s string, choices []string) string {
	if s == "" || len(s) > longestTypo {
		return ""
	}
	plain := foldName(s)
	best, choice := 1+allowedTypos(s), ""
	for _, c := range choices {
		if len(c) > longestTypo {
			continue
		}
		if d := distance(plain, foldName(c), best); d < best {
			best, choice = d, c
		}
	}
	return choice
}

// allowedTypos is how many slips a word of that length may have and still be recognised.
func allowedTypos(s string) int {
	switch n := utf8.RuneCountInString(s); {
	case n <= 4:
		return 1
	case n <= 8:
		return 2
	}
	return 3
}

// foldName takes away what one does not remember of a name: capitals, and whether it is a hyphen or an underscore.
func foldName(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }

// distance is the number of slips between a and b: a byte more, less or other, or two neighbours swapped. What is limit or
// more may be given as limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	// Three rows of the table of prefixes: swapped neighbours look two rows back.
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return min(last[len(b)], limit)
}
