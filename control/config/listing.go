package config

import (
	"slices"
	"strconv"
	"strings"
)

// numbers sets to to a list of numbers, written as the kernel writes lists of CPUs: 2-5,7.
func (d *decoder) numbers(v value, to *[]int, high int64) {
	what := `a list of numbers such as "2-5,7"`
	if d.either(whole(0, high), textLike(numbersPattern)) {
		return
	}
	s, ok := d.scalar(v, what)
	if !ok {
		return
	}
	seen := map[int]bool{}
	var list []int
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		from, ok1 := number(first)
		upto, ok2 := number(last)
		switch {
		case !ok1 || !ok2:
			d.errorf(v.pos(), v.path, "must be %s, not %s", what, quoted(s))
			return
		case from > upto:
			d.errorf(v.pos(), v.path, "the range %s ends before it begins", quoted(part))
			return
		case upto > high:
			d.errorf(v.pos(), v.path, "numbers are 0 to %d, not %s", high, quoted(part))
			return
		}
		for n := int(from); n <= int(upto); n++ {
			if seen[n] {
				d.errorf(v.pos(), v.path, "%d stands twice in %s", n, quoted(s))
				return
			}
			seen[n] = true
			list = append(list, n)
		}
	}
	slices.Sort(list)
	*to = list
}

// listing is the inverse of numbers.
func listing(list []int) string {
	var parts []string
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		part := strconv.Itoa(list[i])
		if j > i {
			part += "-" + strconv.Itoa(list[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ",")
}
