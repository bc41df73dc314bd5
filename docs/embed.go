// Package docs holds the pages for people, and gives the binary those parts that it shows itself.
package docs

import (
	_ "embed"
	"regexp"
	"strings"
)

// Config says every key of the configuration. The manual page weir.yaml(5) is made of it.
//
//go:embed config.md
var Config string

//go:embed packet-walk.md
var packetWalk string

// dropRow is a row of the table of drops: | `reason` | what was wrong |.
var dropRow = regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| (.+) \\|$")

// Drops says what each reason means for which frames are dropped, as packet-walk.md does, in plain text.
func Drops() map[string]string {
	_, table, _ := strings.Cut(packetWalk, "\n## Drops\n")
	means := map[string]string{}
	for _, row := range dropRow.FindAllStringSubmatch(table, -1) {
		means[row[1]] = strings.ReplaceAll(row[2], "`", "")
	}
	return means
}
