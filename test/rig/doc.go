// Package rig runs the built programs of this project as the processes they
// are in the field: the service on a data directory of its own, the operator's
// commands and the device agent against it. Black-box tests and the demo
// program stand on it.
//
// It trusts what an operator trusts: command lines, the JSON that init prints,
// the log, the files that are documented as the service's output. It knows no
// package of the service, so what it shows is what users get.
//
// Every constructor answers an error, for programs that are no tests; Main and
// New are the thin part for tests. Nothing listens on a fixed port: the service
// binds port 0 and its log says what came of it.
package rig
