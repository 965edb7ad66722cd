//go:build tools

// Package tools pins the schema registry that tests run against (Apache-2.0); src/servers/registry.rs builds it.
package tools

import _ "github.com/axonops/axonops-schema-registry/cmd/schema-registry"
