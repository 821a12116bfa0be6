package registration

import (
	"context"
	"errors"

	"latchkey.example/latchkey/dps"
)

// Bulk does a bulk request, item by item: what succeeded stays when others fail, as in the imitated service.
func (c *Core) Bulk(ctx context.Context, by Caller, bulk dps.BulkEnrollments) dps.BulkResult {
	var result dps.BulkResult
	for _, item := range bulk.Items {
		err := item.Err
		if err == nil {
			err = c.bulkOne(by, bulk.Mode, item.ETag, func() error { return c.DeleteEnrollment(ctx, by, item.RegistrationID, item.ETag) },
				func(match string) error { _, err := c.PutEnrollment(ctx, by, item.Enrollment, match); return err })
		}
		if err != nil {
			result.Errors = append(result.Errors, bulkError(item.RegistrationID, err))
		}
	}
	return result
}

// bulkOne does one item. An update with an etag replaces what has it, one without creates, as was recorded of the imitated service;
// updateIfMatchETag never creates.
func (c *Core) bulkOne(by Caller, mode dps.BulkMode, etag string, remove func() error, put func(match string) error) error {
	switch mode {
	case dps.BulkDelete:
		return remove()
	case dps.BulkCreate:
		etag = ""
	case dps.BulkUpdateIfMatchETag:
		if etag == "" {
			s, _ := c.scope(by.Scope)
			return c.fault(s, dps.CodePreconditionFailed, ReasonEtag, "The item needs its etag.", nil)
		}
	}
	return put(etag)
}

func bulkError(id string, err error) dps.BulkError {
	var fault *Fault
	var field *dps.FieldError
	switch {
	case errors.As(err, &fault) && fault.Code == dps.CodeUnavailable: // its own sentence speaks of Retry-After, which an answer with 200 has not
		return dps.BulkError{RegistrationID: id, Code: fault.Code, Status: "The service cannot answer now. Send this item again later."}
	case errors.As(err, &fault):
		return dps.BulkError{RegistrationID: id, Code: fault.Code, Status: fault.Detail}
	case errors.As(err, &field):
		return dps.BulkError{RegistrationID: id, Code: dps.CodeBadRequest, Status: field.Error()}
	}
	return dps.BulkError{RegistrationID: id, Code: dps.CodeInternal}
}
