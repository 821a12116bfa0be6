// Command load measures the built service under a big import: `make bench-import`
// imports a million enrollments of distinct RSA-2048 EKs over HTTPS with the
// operator's own command, while queries are asked and devices register, and ends
// with an error if it took too long, too much memory, or anybody was turned away.
//
// The EKs are random odd moduli with the top bit set: the service cannot tell them
// from a chip's without asking the chip, and a million real key pairs would take
// hours to make. The devices that register are software TPMs with real keys.
package main
