package registration

import "errors"

// ErrBusy says that as many direct methods of the device are waiting for their answers as may. It can be called again.
var ErrBusy = errors.New("too many direct methods of the device are waiting for their answers")
