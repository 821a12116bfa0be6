package embedded

// cause is why a connection ended. The set is closed: metrics label by it.
type cause string

const (
	// Before login.
	causeTooMany     cause = "too-many"      // connections are at a limit, all or those of an address
	causeTLS         cause = "tls"           // no handshake
	causeSlow        cause = "slow"          // no CONNECT in time
	causeLevel       cause = "level"         // another MQTT than 3.1.1
	causeUser        cause = "user"          // user name, client id or hub name make no sense
	causeToken       cause = "token"         // not a SAS token, or for another resource
	causeExpired     cause = "token-expired" // at login or later: the SAS token or certificate has run out
	causeFar         cause = "token-far"     // the SAS token expires too far ahead
	causeCredentials cause = "credentials"   // unknown device, or not its key or certificate
	causeDisabled    cause = "disabled"      // the device may not log in; also after login
	causeWill        cause = "will"          // a will that could not be a telemetry message
	causeUnavailable cause = "unavailable"   // store or sealer failed, or the old session would not end
	causeUnowned     cause = "unowned"       // the process cannot know that no other serves the hub; also after login
	// After it.
	causeClient   cause = "client"         // DISCONNECT
	causeLost     cause = "lost"           // the connection broke or went silent
	causeTakeover cause = "takeover"       // the device logged in again
	causeRekeyed  cause = "rekeyed"        // the device got another key
	causeRemoved  cause = "removed"        // the device is no more of this hub
	causeDropped  cause = "hub-dropped"    // the scope of the hub is gone
	causeTopic    cause = "foreign-topic"  // publish to a topic that is not its own
	causeProps    cause = "bad-properties" // a property bag that cannot be read
	causeQoS2     cause = "qos2"
	causeTwin     cause = "twin"     // a twin request that cannot be answered
	causeMethod   cause = "method"   // an answer to a direct method that makes no sense
	causeFlood    cause = "flood"    // it subscribes and unsubscribes without end
	causeStalled  cause = "stalled"  // it does not read what it is sent
	causeSink     cause = "sink"     // the telemetry record could not be written
	causeShutdown cause = "shutdown" // also before login
	// Any time.
	causeMalformed cause = "malformed"
	causeTooLarge  cause = "too-large"
	causePanic     cause = "panic"
)
