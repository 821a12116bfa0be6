package embedded

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// maxConnect bounds the CONNECT packet, the one thing that strangers can make the hub hold: user name and SAS token are some
// hundred bytes each, the rest is room for a will.
const maxConnect = 8 << 10

// readConnect reads the first packet, which must be a CONNECT of MQTT 3.1.1 (3.1), with its fixed header. It reads no byte
// beyond it, and judges what the library would judge wrongly: it answers codes of MQTT 5 to older clients, and parses the
// properties of version 5. The deadline is the caller's.
func readConnect(r io.Reader) ([]byte, cause) {
	packet := make([]byte, 1, 64)
	if _, err := io.ReadFull(r, packet); err != nil {
		return nil, readCause(err)
	}
	if packet[0] != 0x10 {
		return nil, causeMalformed
	}
	length, header, why := readLength(r, packet)
	if why != "" {
		return nil, why
	}
	if length > maxConnect {
		return nil, causeTooLarge
	}
	packet = append(header, make([]byte, length)...)
	if _, err := io.ReadFull(r, packet[len(header):]); err != nil {
		return nil, readCause(err)
	}
	return packet, judgeConnect(packet[len(header):])
}

// readLength reads the remaining length (2.2.3) and appends its bytes to packet.
func readLength(r io.Reader, packet []byte) (int, []byte, cause) {
	var length int
	var b [1]byte
	for shift := 0; shift < 28; shift += 7 {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return 0, nil, readCause(err)
		}
		packet = append(packet, b[0])
		length |= int(b[0]&0x7f) << shift
		if b[0]&0x80 == 0 {
			return length, packet, ""
		}
	}
	return 0, nil, causeMalformed
}

// judgeConnect judges protocol name, level and flags (3.1.2).
func judgeConnect(body []byte) cause {
	switch {
	case bytes.HasPrefix(body, []byte("\x00\x06MQIsdp")):
		return causeLevel // MQTT 3.1
	case len(body) < 10 || !bytes.HasPrefix(body, []byte("\x00\x04MQTT")):
		return causeMalformed
	case body[6] != 4:
		return causeLevel
	}
	flags := body[7]
	const password, user, will, retain, qos = 0x40, 0x80, 0x04, 0x20, 0x18
	switch {
	case flags&1 != 0, flags&password != 0 && flags&user == 0, flags&will == 0 && flags&(retain|qos) != 0, flags&qos == qos:
		return causeMalformed
	case flags&qos > 1<<3:
		return causeWill // QoS 2 is not offered
	}
	return ""
}

func readCause(err error) cause {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return causeSlow
	case errors.Is(err, errFraming):
		return causeMalformed
	}
	return causeLost
}
