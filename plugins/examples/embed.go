// Package examples holds the text of the examples, which are what
// `imgcache-host plugin new` begins a plugin with.
package examples

import "embed"

// Files are the sources of each example, without what is built of them.
//
//go:embed */Makefile */README.md go-driver/main.go go-policy/main.go c-policy/policy.c
//go:embed rust-policy/policy.rs rust-policy/manifest.json python-driver/*.py
//go:embed assemblyscript-policy/policy.ts assemblyscript-policy/package.json
//go:embed assemblyscript-policy/package-lock.json assemblyscript-policy/.npmrc
var Files embed.FS
