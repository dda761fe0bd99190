package config

import "errors"

// Load reads configuration files and the *.hcl and *.hcl.json files of
// directories, and merges them. An error is a [*Diagnostics] unless a path
// cannot be read.
func Load(paths []string) (*Config, error) { return nil, errors.ErrUnsupported }
