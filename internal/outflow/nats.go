package outflow

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	natsSpecial = ".*>" // what must not come from a name into a subject
	natsAtOnce  = 64    // devices whose messages are on their way at one time
)

// ToNATS publishes each record to a JetStream stream, which the operator has made, and waits for its acknowledgement. Nats-Msg-Id is the record's id, so
// that the stream drops what comes twice within its window.
type ToNATS struct {
	URL             string // tls://host:4222, or nats://host:4222
	Subject         string // with {scope}, {hub} and {deviceId}
	Stream          string // that must take it; empty: any
	Payload         Payload
	CredentialsFile string // of a user, as nsc writes it
	TokenFile       string
	Username        string
	PasswordFile    string
	Trust           Trust
}

func (t ToNATS) open(Config) (sender, error) {
	u, err := url.Parse(t.URL)
	if err != nil || u.Host == "" || u.Scheme != "nats" && u.Scheme != "tls" {
		return nil, errors.New("url must be tls://HOST:PORT, or nats://HOST:PORT")
	}
	if u.User != nil {
		return nil, errors.New("url must not hold a user name or password: use credentialsFile, tokenFile, or username and passwordFile")
	}
	subject := template(t.Subject)
	if err := subject.check("*>"); err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	s := &natsSender{to: t, subject: subject}
	_, err = s.options()
	return s, err
}

type natsSender struct {
	to      ToNATS
	subject template
	conn    *nats.Conn // nil: none
	stream  jetstream.JetStream
	lost    context.Context // ends with the connection
	stale   atomic.Bool
}

func (s *natsSender) options() ([]nats.Option, error) {
	options := []nats.Option{nats.Name("latchkey"), nats.NoReconnect(), nats.Timeout(brokerWait / 2), nats.PingInterval(20 * time.Second), nats.MaxPingsOutstanding(2),
		nats.FlusherTimeout(brokerWait / 2)}
	trust, err := s.to.Trust.config()
	if err != nil {
		return nil, err
	}
	if s.to.Trust != (Trust{}) {
		options = append(options, nats.Secure(trust))
	}
	token, err := readPassword(s.to.TokenFile)
	if err != nil {
		return nil, err
	}
	password, err := readPassword(s.to.PasswordFile)
	if err != nil {
		return nil, err
	}
	switch {
	case s.to.CredentialsFile != "":
		if _, err := readSecret(s.to.CredentialsFile); err != nil {
			return nil, err
		}
		options = append(options, nats.UserCredentials(s.to.CredentialsFile))
	case token != "":
		options = append(options, nats.Token(token))
	case s.to.Username != "":
		options = append(options, nats.UserInfo(s.to.Username, password))
	}
	return options, nil
}

func (s *natsSender) reload() error {
	_, err := s.options()
	if err == nil {
		s.stale.Store(true)
	}
	return err
}

func (s *natsSender) connect() error {
	if s.stale.Swap(false) {
		s.drop()
	}
	if s.conn != nil && s.conn.IsConnected() {
		return nil
	}
	s.drop()
	options, err := s.options()
	if err != nil {
		return err
	}
	lost, lose := context.WithCancel(context.Background())
	conn, err := nats.Connect(s.to.URL, append(options, nats.ClosedHandler(func(*nats.Conn) { lose() }))...)
	if err != nil {
		lose()
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	s.conn, s.lost = conn, lost
	if s.stream, err = jetstream.New(conn); err != nil {
		s.drop()
	}
	return err
}

// send publishes messages of many devices at one time, but one after the other of each: a stream that takes the second and not the first would else have
// them in the wrong order for ever, since it drops the second one when it comes again.
func (s *natsSender) send(ctx context.Context, messages []message) (int, error) {
	if err := s.connect(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.lost, cancel)()
	byDevice, order := map[string][]int{}, []string{}
	for i, m := range messages {
		key := m.Hub + "/" + m.DeviceID
		if byDevice[key] == nil {
			order = append(order, key)
		}
		byDevice[key] = append(byDevice[key], i)
	}
	results := make([]error, len(messages))
	for i := range results {
		results[i] = errUntried
	}
	work := make(chan []int)
	var workers sync.WaitGroup
	for range min(natsAtOnce, len(order)) {
		workers.Go(func() {
			for device := range work {
				for _, i := range device {
					if results[i] = s.publish(ctx, messages[i]); results[i] != nil {
						break
					}
				}
			}
		})
	}
	for _, key := range order {
		work <- byDevice[key]
	}
	close(work)
	workers.Wait()
	return s.outcome(results)
}

// errUntried stands for a message that was not sent since one before it failed.
var errUntried = errors.New("an earlier message of the device was not taken")

// outcome counts from the first on. What was taken behind the first that was not is sent again, and dropped by the stream.
func (s *natsSender) outcome(results []error) (int, error) {
	for n, err := range results {
		if err == nil {
			continue
		}
		if no := (*refused)(nil); !errors.As(err, &no) {
			s.drop()
		}
		return n, err
	}
	return len(results), nil
}

func (s *natsSender) publish(ctx context.Context, m message) error {
	msg := nats.NewMsg(s.subject.fill(m, natsSpecial))
	msg.Data = s.to.Payload.of(m)
	for name, value := range map[string]string{"Latchkey-Scope": m.Scope, "Latchkey-Hub": m.Hub, "Latchkey-Device": m.DeviceID, "Latchkey-Time": m.Time} {
		msg.Header.Set(name, value)
	}
	if most := s.conn.MaxPayload(); int64(len(msg.Data)+1024) > most {
		return &refused{fmt.Errorf("the server takes messages of at most %d bytes (max_payload)", most), true}
	}
	ctx, cancel := context.WithTimeout(ctx, brokerWait)
	defer cancel()
	options := []jetstream.PublishOpt{jetstream.WithMsgID(m.ID)}
	if s.to.Stream != "" {
		options = append(options, jetstream.WithExpectStream(s.to.Stream))
	}
	_, err := s.stream.PublishMsg(ctx, msg, options...)
	return explainNATS(err, msg.Subject)
}

// maxSizeExceeded is JetStream's error code for a message larger than the stream takes (max_msg_size).
const maxSizeExceeded = 10054

func explainNATS(err error, subject string) error {
	var no *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &no) && no.ErrorCode == maxSizeExceeded:
		return &refused{err, true}
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("no JetStream stream takes %s: make one with this subject", subject)
	}
	return fmt.Errorf("publishing to NATS: %w", err)
}

func (s *natsSender) drop() {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

func (s *natsSender) close() error {
	s.drop()
	return nil
}
