package hubapi_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// Whatever an owner sends is answered in one of the hub's forms, and never by a fault of the service.
func FuzzRequest(f *testing.F) {
	h := newHouse(f)
	h.create("d")
	for _, o := range operations {
		f.Add(o.method, o.path, o.body, "If-Match", "*")
	}
	f.Add("POST", "/messages/deviceBound", "m", "iothub-to", "/devices/d/messages/deviceBound")
	f.Add("POST", "/devices/d/messages/deviceBound", "m", "X-Latchkey-Properties", "a=b&c=%20")
	f.Add("POST", "/devices/query", `{"query":"SELECT * FROM devices WHERE NOT a.b[[c]] IN ['x', 1.5e3] AND startswith(deviceId, 'd')"}`, "x-ms-max-item-count", "7")
	f.Add("PUT", "/devices/%64", `{"deviceId":"d","authentication":{"type":"selfSigned"}}`, "If-None-Match", `"*"`)
	authorization := as(f, owner)
	f.Fuzz(func(t *testing.T, method, path, body, name, value string) {
		target := "http://" + host + "/" + strings.TrimPrefix(path, "/")
		u, err := url.Parse(target)
		if err != nil || u.Host != host {
			return
		}
		request := httptest.NewRequest(http.MethodPost, "http://"+host+"/", strings.NewReader(body))
		request.Method, request.URL = method, u
		request.URL.RawQuery = strings.Trim(request.URL.RawQuery+"&"+version[1:], "&")
		request.Header = http.Header{"Authorization": {authorization}, "Content-Type": {"application/json"}}
		if !strings.EqualFold(name, "Authorization") {
			request.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		h.api.ServeHTTP(w, request)
		if w.Code >= 500 && w.Code != 501 {
			t.Fatalf("%s %s %q: %d %s", method, path, body, w.Code, w.Body)
		}
		var answer struct{ Message, ExceptionMessage string }
		if w.Code >= 400 && (json.Unmarshal(w.Body.Bytes(), &answer) != nil || !strings.HasPrefix(answer.Message, "ErrorCode:")) && !strings.Contains(w.Body.String(), `"isSuccessful":false`) {
			t.Fatalf("%s %s %q: %d %s", method, path, body, w.Code, w.Body)
		}
	})
}
