package linked

import (
	"errors"
	"testing"

	"latchkey.example/latchkey/internal/registration"
)

func TestTheEmbeddedHubDoesWellWhereItIsServed(t *testing.T) {
	d := &driver{fails: map[string]error{}}
	local := Local{d}
	for reach, want := range map[registration.Reach]error{registration.Here: nil, registration.Elsewhere: registration.ErrElsewhere, registration.Unserved: errNoHub} {
		d.reach = reach
		if err := local.Probe(t.Context(), "s", registration.LinkedHub{}, nil); !errors.Is(err, want) {
			t.Errorf("%v: %v, want %v", reach, err, want)
		}
	}
	for _, err := range []error{local.Judge("s", registration.LinkedHub{Settings: []byte(`{"a":1}`)}, nil), local.Judge("s", registration.LinkedHub{}, []byte("{}"))} {
		if err == nil {
			t.Error("settings or a secret are taken")
		}
	}
	if err := local.Judge("s", registration.LinkedHub{}, nil); err != nil {
		t.Error(err)
	}
}
