// Package hubapi is the service side of the embedded hub, in the shape of Azure IoT Hub's REST interface: what applications and their service SDKs
// call, over HTTPS with a SAS token of an access policy of the scope. The host name says which hub is meant: each scope has one.
//
// It guarantees that whoever has not the right gets nothing, whatever else is asked for; that an etag which is not the current one changes nothing; that
// keys are not shown, and nothing is sent to a device, before its audit row is durable; and that each request costs bounded memory and time.
//
// It trusts the core with tokens and audit, and the hub with what Hub says. What an IoT Hub has and this one has not (modules, jobs,
// configurations, file upload, AMQP) is refused, never pretended.
package hubapi
