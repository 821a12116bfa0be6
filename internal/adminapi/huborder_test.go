package adminapi_test

import (
	"net/http"
	"strings"
	"testing"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// hubDevice is read where it counts, refused where it says nothing, and written with the change.
func TestTheQueryMayOrderWhatBecomesOfDevicesAtTheirHubs(t *testing.T) {
	h := newHouse(t)
	const sym, off = `"attestation":{"type":"symmetricKey"}`, `,"provisioningStatus":"disabled"`
	for _, path := range []string{"/enrollments/e", "/enrollmentGroups/e"} {
		h.owner(http.MethodPut, path, "{"+sym+"}").want(200)
		for query, says := range map[string]string{"&hubDevice=": "disable or remove", "&hubDevice=Disable": "disable or remove", "&hubDevice=remove&hubDevice=remove": "once",
			"&hubDevice=disable": "provisioningStatus disabled"} {
			if a := h.ask(http.MethodPut, path+version+query, "{"+sym+"}", as(owner), "If-Match", "*").refused(dps.CodeBadRequest); !strings.Contains(a.json("message"), says) {
				t.Errorf("%s%s: %s", path, query, a.body)
			}
		}
		h.ask(http.MethodDelete, path+version+"&hubDevice=keep", "", as(owner)).refused(dps.CodeBadRequest)
		h.ask(http.MethodPut, path+version+"&hubDevice=disable", "{"+sym+off+"}", as(owner), "If-Match", "*").want(200)
		h.ask(http.MethodDelete, path+version+"&hubDevice=remove", "", as(owner)).want(204)
	}
	h.ask(http.MethodDelete, "/registrations/e"+version+"&hubDevice=no", "", as(owner)).refused(dps.CodeBadRequest)
	rows, err := h.store.ClaimOutbox(t.Context(), registration.OutboxClaim{ID: "look", Kind: registration.OutboxGroupOrder, Limit: 10})
	must(t, err)
	if len(rows) != 2 { // nobody is registered with the enrollment
		t.Errorf("%d orders for the group's devices: %+v", len(rows), rows)
	}
}
