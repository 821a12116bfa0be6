package brokerapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"latchkey.example/latchkey/internal/web"
)

// maxFields bounds the parameters of one question; the largest has a dozen.
const maxFields = 64

// fields are the parameters of a question, by name, each once. One that comes twice is refused: a broker that does not escape what a device has chosen
// would let the device add parameters of its own.
type fields map[string]string

// readFields reads them from the query of a GET, or from a POST's form or flat JSON object.
func readFields(call web.Call) (fields, error) {
	if call.Method == http.MethodGet {
		return parseForm(call.URL.RawQuery)
	}
	media, _, err := mime.ParseMediaType(call.Header.Get("Content-Type"))
	switch {
	case err == nil && media == "application/x-www-form-urlencoded":
		return parseForm(string(call.Body))
	case err == nil && media == "application/json":
		return parseJSON(call.Body)
	}
	return nil, errors.New("the body is neither a form nor JSON, or its Content-Type does not say so")
}

func parseForm(text string) (fields, error) {
	f := fields{}
	if strings.Count(text, "&") >= maxFields {
		return nil, fmt.Errorf("there are more than %d parameters", maxFields)
	}
	for pair := range strings.SplitSeq(text, "&") {
		if pair == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, errName := url.QueryUnescape(rawName)
		value, errValue := url.QueryUnescape(rawValue)
		if errName != nil || errValue != nil {
			return nil, errors.New("an escape is broken")
		}
		if err := f.add(name, value); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// parseJSON takes a flat object of strings, numbers, booleans and nulls; other members are passed over.
func parseJSON(body []byte) (fields, error) {
	f := fields{}
	decoder := json.NewDecoder(strings.NewReader(string(body)))
	decoder.UseNumber()
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("the body is not a JSON object")
	}
	for count := 0; decoder.More(); count++ {
		if count == maxFields {
			return nil, fmt.Errorf("there are more than %d members", maxFields)
		}
		name, err := decoder.Token()
		if err != nil {
			return nil, errors.New("the JSON is broken")
		}
		var value any
		if err := decoder.Decode(&value); err != nil {
			return nil, errors.New("the JSON is broken")
		}
		text := ""
		switch v := value.(type) {
		case string:
			text = v
		case json.Number:
			text = v.String()
		case bool:
			text = strconv.FormatBool(v)
		case nil:
		default:
			continue
		}
		if err := f.add(name.(string), text); err != nil {
			return nil, err
		}
	}
	if token, err := decoder.Token(); err != nil || token != json.Delim('}') || decoder.More() {
		return nil, errors.New("the JSON is broken")
	}
	return f, nil
}

func (f fields) add(name, value string) error {
	if _, twice := f[name]; twice {
		return errors.New("a parameter comes twice")
	}
	f[name] = value
	return nil
}
