// Package spool keeps what was accepted until it is where it belongs: a file of lines, and a log in segments with a cursor for each of its readers.
//
// It guarantees, with honest disks: what was acknowledged survives kill -9 and the power's loss; nothing acknowledged is skipped, and what is damaged is
// refused and not passed over; a log never grows beyond its bound. It trusts that one process at a time writes a path.
package spool
