// Package configs holds example configurations, each checked by a test of control/config, and gives the demo its own.
package configs

import _ "embed"

// Demo is what `weir demo` runs on.
//
//go:embed demo.yaml
var Demo string
