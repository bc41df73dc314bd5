package config

// maxValues is how many values all files may have: scalars, lists and mappings, keys included. The parser takes 800 bytes for each, and 2 microseconds, so
// a file of the largest size could otherwise take 6 GB and 18 s. Ten thousand services with ten backends of four keys each are a million.
const maxValues = 3 << 19

// countValues is how many values b has, about, without parsing it: it stops counting above limit. It counts what separates values, so that text with
// commas or colons in it may count for more than one; that is nothing beside the limit.
func countValues(b []byte, limit int) (n int) {
	depth := 0 // of brackets
	start := true
	for i := 0; i < len(b) && n <= limit; i++ {
		c := b[i]
		ends := i+1 == len(b) || b[i+1] == ' ' || b[i+1] == '\n' || b[i+1] == '\r' || b[i+1] == '\t'
		switch {
		case c == '\n':
			start = true
			continue
		case c == ' ' || c == '\t' || c == '\r':
			continue
		case c == '#' && (i == 0 || b[i-1] == ' ' || b[i-1] == '\n' || b[i-1] == '\t'):
			for i+1 < len(b) && b[i+1] != '\n' {
				i++
			}
			continue
		case start && (c == '"' || c == '\''):
			for i++; i < len(b) && b[i] != c; i++ {
				if c == '"' && b[i] == '\\' {
					i++
				}
			}
		case start && (c == '[' || c == '{'):
			depth++
			n++
			continue
		case depth > 0 && (c == ']' || c == '}'):
			depth--
		case c == ',' && depth > 0:
			n++
			start = true
			continue
		case c == ':' && depth > 0 && (ends || b[i+1] == ',' || b[i+1] == '}' || b[i+1] == ']'):
			n++
			start = true
			continue
		case c == ':' && ends:
			n += 2
			start = true
			continue
		case start && c == '-' && ends:
			n++
			continue
		}
		start = false
	}
	return n
}
