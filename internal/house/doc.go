// Package house holds the rule of which room may import which, and the tests that judge the whole module by it. It
// guarantees that imports point one way (cmd, daemon, transports, registration, then attest and dps), that attest,
// dps and iothub stay pure, and that no software TPM reaches the service or the agent. It trusts the go command's account of
// what a package imports. Only files that are built into a package count; its tests may import what they need.
package house
