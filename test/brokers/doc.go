// Package brokers proves that a real MQTT broker is a hub: the built latchkey beside a RabbitMQ of its own, configured by the files of
// docs/hubs/rabbitmq with nothing changed but names, ports and paths; a device with a TPM, which registers and works over TLS.
//
// One RabbitMQ and one service serve the whole package: RabbitMQ takes some seconds to start. It runs as whoever runs the test, on free ports, in a
// directory of its own, with an Erlang port mapper of its own, and dies with the test; a RabbitMQ of the machine is not touched.
package brokers
