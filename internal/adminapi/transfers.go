package adminapi

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// Transfer is an offer as its maker sees it. The code is there in the answer that made it, and never again.
type Transfer struct {
	RegistrationID string `json:"registrationId"`
	To             string `json:"to"`
	Created        string `json:"createdDateTimeUtc"`
	Expires        string `json:"expiresDateTimeUtc"`
	AccessPolicy   string `json:"accessPolicy"`
	Ended          bool   `json:"ended,omitempty"`
	Code           string `json:"code,omitempty"`
}

// Transfers is the answer of GET /latchkey/v1/transfers.
type Transfers struct {
	Transfers []Transfer `json:"transfers"`
	After     string     `json:"after,omitempty"` // ask for what is behind it; absent: there is no more
}

const transferPage = 1000

// transferAdditions are the paths of offers. Whoever makes one lets the enrollment and the registration go; whoever takes one makes an enrollment.
func (a *API) transferAdditions() []addition {
	return []addition{
		{"transfers", func(string) map[string]endpoint {
			return map[string]endpoint{
				http.MethodGet:  {"transfer-list", registration.EnrollmentRead, bodiless, false, a.listTransfers},
				http.MethodPost: {"transfer-accept", registration.EnrollmentWrite, message, false, a.acceptTransfer},
			}
		}},
		{"transfers/{registrationId}", func(id string) map[string]endpoint {
			return map[string]endpoint{
				http.MethodPut:    {"transfer-offer", registration.MayOffer, message, false, a.offerTransfer(id)},
				http.MethodDelete: {"transfer-withdraw", registration.MayOffer, bodiless, false, a.withdrawTransfer(id)},
			}
		}},
	}
}

func transfer(o registration.Offer, now time.Time) Transfer {
	return Transfer{RegistrationID: o.ID, To: o.Target, Created: dps.FormatTime(o.Created), Expires: dps.FormatTime(o.Expires), AccessPolicy: o.Policy, Ended: !now.Before(o.Expires)}
}

func (a *API) listTransfers(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
	page, err := a.core.Offers(ctx, by, dps.FoldID(call.URL.Query().Get("after")), transferPage)
	if err != nil {
		return web.Reply{}, err
	}
	answer := Transfers{Transfers: make([]Transfer, 0, len(page))}
	for _, o := range page {
		answer.Transfers = append(answer.Transfers, transfer(o, call.Arrived))
	}
	if len(page) == transferPage {
		answer.After = page[len(page)-1].ID
	}
	body, err := json.Marshal(answer)
	return web.Reply{Status: http.StatusOK, Body: body}, err
}

func (a *API) offerTransfer(id string) handler {
	return func(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
		if err := a.validID(by, id); err != nil {
			return web.Reply{}, err
		}
		wanted, err := dps.DecodeOffer(call.Body)
		if err != nil {
			return web.Reply{}, a.refuseBody(by, err)
		}
		life := registration.OfferLife
		if wanted.ValidSeconds != 0 {
			life = time.Duration(wanted.ValidSeconds) * time.Second
		}
		o, code, err := a.core.OfferDevice(ctx, by, id, wanted.To, life)
		if err != nil {
			return web.Reply{}, err
		}
		answer := transfer(o, o.Created)
		answer.Code = code
		return secretReply(answer, nil)
	}
}

func (a *API) withdrawTransfer(id string) handler {
	return func(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
		if err := a.validID(by, id); err != nil {
			return web.Reply{}, err
		}
		return web.Reply{Status: http.StatusNoContent}, a.core.WithdrawOffer(ctx, by, id)
	}
}

func (a *API) acceptTransfer(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
	wanted, err := dps.DecodeAcceptance(call.Body)
	if err != nil {
		return web.Reply{}, a.refuseBody(by, err)
	}
	taken, err := a.core.TakeDevice(ctx, by, wanted.Code, func(id string, ek []byte) (dps.IndividualEnrollment, error) {
		wire, err := wanted.Enrollment(id, ek)
		if err != nil {
			err = a.refuseEntry(by, registration.ReasonBadEnrollment, err)
		}
		return wire, err
	})
	if err != nil {
		return web.Reply{}, err
	}
	return web.Reply{Status: http.StatusOK, Body: taken.Encode(), ID: taken.RegistrationID}, nil
}
