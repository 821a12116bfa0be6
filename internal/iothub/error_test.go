package iothub_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey.example/latchkey/internal/iothub"
)

func TestErrorsAsHubsAnswerThem(t *testing.T) {
	for name, c := range map[string]struct {
		status       int
		header, body string
		want         iothub.Error
	}{
		"not found": {404, "", `{"Message":"ErrorCode:DeviceNotFound;press-07","ExceptionMessage":"Tracking ID:06e0221675514160850421f0b3b787a9-G:0-TimeStamp:10/24/2023 16:57:00"}`,
			iothub.Error{Code: iothub.DeviceNotFound, Name: "DeviceNotFound", Message: "press-07", TrackingID: "06e0221675514160850421f0b3b787a9-G:0"}},
		"of 2016, tracking inside the message": {409, "", `{"Message":"ErrorCode:DeviceAlreadyExists;A device with ID 'a' is already registered.\r\nTracking Id:218b-G:11-TimeStamp:03/16/2016 17:26:37\r\nErrorCode:DeviceAlreadyExists"}`,
			iothub.Error{Code: iothub.DeviceAlreadyExists, Name: "DeviceAlreadyExists", Message: "A device with ID 'a' is already registered.", TrackingID: "218b-G:11"}},
		"precondition": {412, "PreconditionFailed", `{"Message":"ErrorCode:PreconditionFailed;Precondition failed: Device version did not match, existingVersion:957482805 newVersion:957482804","ExceptionMessage":"Tracking ID:x"}`,
			iothub.Error{Code: iothub.PreconditionFailed, Name: "PreconditionFailed", Message: "Precondition failed: Device version did not match, existingVersion:957482805 newVersion:957482804", TrackingID: "x"}},
		"throttled, with advice": {429, "", `{"Message":"ErrorCode:ThrottlingBacklogTimeout;The request has been throttled. Wait 10 seconds and try again. Operation type: RegistryWrite","ExceptionMessage":"Tracking ID:6a61-G:0-TimeStamp:08/15/2026 09:19:06"}`,
			iothub.Error{Code: iothub.ThrottlingBacklogTimeout, Name: "ThrottlingBacklogTimeout", Message: "The request has been throttled. Wait 10 seconds and try again. Operation type: RegistryWrite", TrackingID: "6a61-G:0", RetryAfter: 10 * time.Second}},
		"the second shape": {409, "", `{"errorCode":409001,"message":"there is one","trackingId":"985A-G2:-TimeStamp:2026-08-15T09:09:19Z","timestampUtc":"2026-08-15T09:09:19Z"}`,
			iothub.Error{Code: iothub.DeviceAlreadyExists, Name: "DeviceAlreadyExists", Message: "there is one", TrackingID: "985A-G2:-TimeStamp:2026-08-15T09:09:19Z"}},
		"the second shape inside the first": {404, "", `{"Message":"{\"errorCode\":404103,\"message\":\"not online\",\"trackingId\":\"8D95\",\"info\":null}","ExceptionMessage":""}`,
			iothub.Error{Code: iothub.DeviceNotOnline, Name: "DeviceNotOnline", Message: "not online", TrackingID: "8D95"}},
		"a code that is new":              {403, "", `{"Message":"ErrorCode:JobQuotaExceeded;no"}`, iothub.Error{Name: "JobQuotaExceeded", Message: "no"}},
		"the header alone":                {401, "IotHubUnauthorizedAccess", ``, iothub.Error{Code: iothub.IotHubUnauthorizedAccess, Name: "IotHubUnauthorizedAccess"}},
		"the message alone":               {401, "", `{"Message":"Unauthorized"}`, iothub.Error{Message: "Unauthorized"}},
		"a proxy's page":                  {502, "", `<html>Bad gateway</html>`, iothub.Error{}},
		"nothing":                         {500, "", ``, iothub.Error{}},
		"null":                            {500, "", `null`, iothub.Error{}},
		"a body that says another status": {503, "", `{"Message":"ErrorCode:DeviceNotFound;x"}`, iothub.Error{Name: "DeviceNotFound", Message: "x"}},
		"control characters":              {400, "", "{\"Message\":\"ErrorCode:ArgumentInvalid;a\\u001b[31m\\nb\\u2028c\"}", iothub.Error{Code: iothub.ArgumentInvalid, Name: "ArgumentInvalid", Message: "a?[31m b?c"}},
		"a header that is none":           {400, "a\x1b b", ``, iothub.Error{}},
		"too long to be one":              {400, "", `{"Message":"` + strings.Repeat("x", iothub.MaxErrorBody) + `"}`, iothub.Error{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := iothub.DecodeError(c.status, c.header, []byte(c.body))
			c.want.Status = c.status
			if diff := cmp.Diff(c.want, *got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatOurHubAnswersIsReadByOurClient(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	want := `{"Message":"ErrorCode:DeviceNotFound;press <7>","ExceptionMessage":"Tracking ID:abc-G:0-TimeStamp:01/02/2030 03:04:05"}`
	if got := string(iothub.ErrorBody(iothub.DeviceNotFound, "press <7>", "abc", at)); got != want {
		t.Errorf("the body is %s", got)
	}
	for _, code := range []iothub.Code{iothub.ArgumentInvalid, iothub.IotHubUnauthorizedAccess, iothub.IotHubQuotaExceeded, iothub.DeviceMaximumQueueDepthExceeded, iothub.DeviceNotFound,
		iothub.DeviceAlreadyExists, iothub.PreconditionFailed, iothub.MessageTooLarge, iothub.ThrottlingException, iothub.ServerError, iothub.ServiceUnavailable} {
		e := iothub.DecodeError(code.Status(), code.String(), iothub.ErrorBody(code, "a sentence; with a semicolon", "id-7", at))
		if e.Code != code || e.Message != "a sentence; with a semicolon" || e.TrackingID != "id-7-G:0" {
			t.Errorf("%v is read as %+v", code, e)
		}
	}
}
