// Package steps looks between the steps of a registration, on both stores: every call that the service makes of its store and its hub fails on either
// side of its effect, hangs, or meets a request that is given up; and between any two of them somebody else does something to the same device. Calls
// are not listed here: a registration in which nothing happens is recorded, and each of its calls is met in turn.
//
// After each story the device tries again, as devices do, the service is started anew on the same store, and what the device was told must be what is
// stored and what its hub holds. At the end latchkey's own fsck looks at everything.
package steps
