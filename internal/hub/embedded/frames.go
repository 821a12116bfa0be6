package embedded

const (
	maxTopic     = 8 << 10
	maxSubscribe = 2 << 10 // a device has four topic filters to name
)

// maxPublish is the largest remaining length of a PUBLISH: topic with its size, packet id, payload.
func maxPublish(l Limits) int { return 2 + maxTopic + 2 + l.Message }

// frames follows the packets of a byte stream by their fixed headers (MQTT 3.1.1, 2.2) and finds the first one that a device
// has no business to send, before anything is allocated for it.
type frames struct {
	maxPublish int
	broken     cause // set for good by the first bad packet

	inLength bool
	head     byte
	length   int
	shift    int
	left     int // bytes of the packet's rest
}

// check takes the next bytes. When broken is set afterwards, the bytes before the returned offset belong to good packets (or
// to the start of the bad one, if its header came in pieces).
func (f *frames) check(b []byte) int {
	start := 0
	for i := 0; i < len(b); {
		switch {
		case f.left > 0:
			n := min(f.left, len(b)-i)
			f.left -= n
			i += n
		case !f.inLength:
			start = i
			f.head, f.length, f.shift, f.inLength = b[i], 0, 0, true
			f.broken = judgeHead(f.head)
			i++
		default:
			f.addLength(b[i])
			i++
		}
		if f.broken != "" {
			return start
		}
	}
	return len(b)
}

func (f *frames) addLength(b byte) {
	f.length |= int(b&0x7f) << f.shift
	f.shift += 7
	switch {
	case b&0x80 == 0:
		f.inLength = false
		f.left = f.length
		f.broken = judgeLength(f.head>>4, f.length, f.maxPublish)
	case f.shift == 28:
		f.broken = causeMalformed
	}
}

// Packet types that a device sends after CONNECT.
const (
	typePublish     = 3
	typePuback      = 4
	typeSubscribe   = 8
	typeUnsubscribe = 10
	typePingreq     = 12
	typeDisconnect  = 14
)

// judgeHead judges packet type and flags. The acknowledgements of QoS 2 are refused with it: none is ever due.
func judgeHead(b byte) cause {
	flags := b & 0x0f
	switch b >> 4 {
	case typePublish:
		switch flags >> 1 & 3 {
		case 2:
			return causeQoS2
		case 3:
			return causeMalformed
		}
		return ""
	case typeSubscribe, typeUnsubscribe:
		if flags == 2 {
			return ""
		}
	case typePuback, typePingreq, typeDisconnect:
		if flags == 0 {
			return ""
		}
	}
	return causeMalformed
}

func judgeLength(kind byte, length, maxPublish int) cause {
	switch kind {
	case typePublish:
		if length > maxPublish {
			return causeTooLarge
		}
	case typeSubscribe, typeUnsubscribe:
		if length > maxSubscribe {
			return causeTooLarge
		}
	case typePuback:
		if length != 2 {
			return causeMalformed
		}
	default:
		if length != 0 {
			return causeMalformed
		}
	}
	return ""
}
