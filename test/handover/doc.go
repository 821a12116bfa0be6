// Package handover tests nodes that share a PostgreSQL database and of which one serves the embedded hub: what one of them may not do is done by the
// one that may, and when that one dies another does it. The nodes run in this process, on a real server, with a real MQTT client; one that is killed is cut off
// from its database and gives nothing up.
package handover
