package dps

import "strconv"

// BulkError is an item that failed.
type BulkError struct {
	RegistrationID string // or the id of the group, as the client spelled it
	Code           Code
	Status         string // a public sentence, such as the text of a FieldError; empty: the code's
}

// BulkResult is the answer to a bulk request. Its HTTP status is 200 even if
// items failed.
type BulkResult struct {
	Errors []BulkError // in the order of the items; empty: all succeeded
}

// Encode is EncodeGroups for individual enrollments.
func (r BulkResult) Encode() []byte { return r.encode("registrationId") }

// EncodeGroups is the answer as JSON, items named as groups. Both members are always there, as C# and Java
// cannot do without.
func (r BulkResult) EncodeGroups() []byte { return r.encode(groupIDName) }

func (r BulkResult) encode(idName string) []byte {
	b := append(make([]byte, 0, 64+256*len(r.Errors)), `{"errors":[`...)
	for i, e := range r.Errors {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendBulkError(b, idName, e.RegistrationID, e.Code, e.Status)
	}
	return append(appendBool(append(b, ']'), "isSuccessful", len(r.Errors) == 0), '}')
}

func appendBulkError(b []byte, idName, id string, code Code, status string) []byte {
	b = appendString(appendName(append(b, '{'), idName), id)
	b = append(b, `,"errorCode":`...)
	b = strconv.AppendInt(b, int64(code), 10)
	if status == "" {
		status = bulkStatus(code)
	}
	return append(appendMember(b, "errorStatus", status), '}')
}

// bulkStatus is the sentence of a code in a bulk answer. Those that say
// something exists are the imitated service's to the letter; If-Match, of which
// the sentences for a PUT speak, does not exist here.
func bulkStatus(code Code) string {
	switch code {
	case CodeEnrollmentExists:
		return "Enrollment already exists."
	case CodeGroupExists:
		return "EnrollmentGroup already exists."
	}
	return code.Message()
}
