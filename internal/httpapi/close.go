package httpapi

import (
	"context"
	"net/http"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// close handles a device that closes its own registration, which is Latchkey's own. The body is register's. It is answered 204 once no key of the device is
// alive at any hub, and 202 until then: the same request, with the same token, asks again.
func (a *API) close(scope, id string) handler {
	return func(ctx context.Context, call web.Call) (web.Reply, error) {
		if err := a.server.APIVersion(scope, call.Request); err != nil {
			return web.Reply{}, err
		}
		body, err := dps.DecodeRegister(call.Body)
		if err != nil {
			return web.Reply{}, a.core.Fault(scope, dps.CodeBadRequest, registration.ReasonBadRequest, publicText(err), err)
		}
		answer, err := a.core.Close(ctx, request(scope, id, call, body))
		if err != nil {
			return web.Reply{}, err
		}
		reply := web.Reply{Status: http.StatusNoContent, RetryAfter: answer.RetryAfter, TrackingID: answer.TrackingID, Reason: answer.Reason}
		switch {
		case answer.Challenge != nil:
			reply.Status, reply.Body = http.StatusUnauthorized, dps.EncodeChallenge(answer.TrackingID, answer.Challenge, call.Arrived)
		case answer.Closing:
			reply.Status, reply.Body = http.StatusAccepted, []byte(`{"status":"closing"}`)
		}
		return reply, nil
	}
}
