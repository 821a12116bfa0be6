// Package demo tests the demo program as it is shown: the built programs, side
// by side in a directory. Against the service it must hold every step. Against a
// service with one deliberate weakness it must fail, in the act that is about
// that weakness, since a show that cannot fail shows nothing.
//
// The weak services are built from the same sources with a line or two replaced
// (go build -overlay); nothing of that is in the tree.
package demo
