// Package faults holds the kill loops: devices register at full rate while nodes of the service, and the database server behind them, are killed
// without warning and started again. At the end all that any device was ever told is compared with what is stored.
//
// What is here besides the tests is for every test that wants such a load: Enroll makes devices with software TPMs, Start has them register
// against a list of addresses and keeps what they were told, Check compares that with a store. The moments of the faults are counted in
// acknowledged registrations and drawn from a seed, never timed.
//
// A kill leaves what the machine's cache holds, so that none of this proves what a power loss does; the stores' own tests do.
package faults
