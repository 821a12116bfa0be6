package device

import "time"

// Steps that an Identity and a Client report. The set is closed.
const (
	StepReadEK             = "read EK"
	StepCreateEK           = "create EK"
	StepReadSRK            = "read SRK"
	StepCreateSRK          = "create SRK"
	StepChallenge          = "request challenge"
	StepActivateCredential = "TPM2_ActivateCredential"
	StepImport             = "TPM2_Import"
	StepLoad               = "TPM2_Load"
	StepSign               = "TPM2_HMAC"
	StepProve              = "prove"
	StepPoll               = "poll"
	StepWait               = "wait"
	StepLookup             = "look up status"
	StepClock              = "ask the time"
)

// Event tells that a step has ended.
type Event struct {
	Step string
	Took time.Duration

	// Detail is a few plain words, such as "kept at 0x81010001"; empty if the
	// step failed. It holds no secret.
	Detail string

	// Err is nil if the step succeeded. A failed step may be tried again.
	Err error
}

// Progress receives events, on the goroutine that did the step. It must not
// call the Identity or Client that reports.
type Progress func(Event)

// timed starts a step; the function that it returns reports its end.
func (p Progress) timed(step string) func(detail string, err error) {
	if p == nil {
		return func(string, error) {}
	}
	start := time.Now()
	return func(detail string, err error) {
		if err != nil {
			detail = ""
		}
		p(Event{Step: step, Took: time.Since(start), Detail: detail, Err: err})
	}
}
