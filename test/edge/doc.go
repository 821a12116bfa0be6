// Package edge has tests of what stands in front of a service: a real HAProxy, which passes TCP through and names the peer with the PROXY protocol.
package edge
