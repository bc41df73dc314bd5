//go:build !race

package config

// slower is how much longer things may take under the race detector.
const slower = 1
