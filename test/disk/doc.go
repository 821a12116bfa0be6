// Package disk takes the disk from under a running service while devices register and an operator works: no room, files moved, deleted, cut. It
// shows that meanwhile everybody is refused with a sentence and a time to come again, that nothing acknowledged is lost, and that the service goes on
// by itself when the disk is back.
//
// No room is made with the limit on the size of a process's files: it needs no rights and works in every container. What the system says then
// (EFBIG) and what a full file system says (ENOSPC) take the same way through the service; the latter is what the store's own tests inject.
package disk
