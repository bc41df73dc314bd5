// Package docs gives the binary the pages that it prints itself.
package docs

import _ "embed"

// Config says every key of the configuration. The manual page weir.yaml(5) is made of it.
//
//go:embed config.md
var Config string
