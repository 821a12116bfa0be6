// Package cluster runs Latchkey as it runs where one machine is not enough, all of it on this one: nodes that share a PostgreSQL and nothing else, and
// HAProxy in front of them, which passes connections through as they are.
//
// The database is one of its own (package pgserver) unless Config names another. Every node is a process on a data directory of its own; the first
// is the one that serves the hub. What clients are told is the load balancer's address, so that each of their connections leads to another node.
//
// It trusts what an operator trusts, as package rig does. Command run (make cluster) keeps such a setup running for people.
package cluster
