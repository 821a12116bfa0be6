package dps

import (
	"cmp"
	"strconv"
	"strings"
)

// MaxBulk is how many items a bulk request may hold, as the imitated service
// documents.
const MaxBulk = 10

// BulkMode says what a bulk request does with each of its items. The service
// that is imitated is not atomic here: good items stay when others fail.
type BulkMode string

// Modes, read in any letter case, since Node's types spell one differently.
const (
	BulkCreate            BulkMode = "create"
	BulkUpdate            BulkMode = "update"
	BulkUpdateIfMatchETag BulkMode = "updateIfMatchETag"
	BulkDelete            BulkMode = "delete"
)

var bulkModes = []BulkMode{BulkCreate, BulkUpdate, BulkUpdateIfMatchETag, BulkDelete}

// BulkEnrollments is a bulk request: 1 to MaxBulk items whose ids differ in
// more than letter case.
type BulkEnrollments struct {
	Mode  BulkMode
	Items []BulkItem
}

// BulkItem is one enrollment of a bulk request.
type BulkItem struct {
	RegistrationID string // valid, as the client spelled it
	ETag           string // the revision that the client means, as MatchETag reads it; empty if absent
	Enrollment     IndividualEnrollment
	Err            error // *FieldError: this item is not valid and fails alone; Enrollment is then the zero one
}

// DecodeBulkEnrollments reads {"enrollments":[…],"mode":"…"}. An error, a
// *FieldError, means the whole request; an item that could be named but is
// otherwise unsound has an Err of its own. With BulkDelete only the id and the
// etag of an item are looked at and its Enrollment stays the zero one.
func DecodeBulkEnrollments(body []byte) (BulkEnrollments, error) {
	mode, list, err := decodeBulk("enrollments", body)
	if err != nil {
		return BulkEnrollments{}, err
	}
	bulk := BulkEnrollments{Mode: mode, Items: make([]BulkItem, 0, len(list))}
	seen := make(map[string]bool, len(list))
	for i, object := range list {
		head, err := decodeBulkHead("enrollments", i, "registrationId", object, seen)
		if err != nil {
			return BulkEnrollments{}, err
		}
		item := BulkItem{RegistrationID: head.id, ETag: head.etag, Err: head.err}
		if mode != BulkDelete && item.Err == nil {
			item.Enrollment, item.Err = decodeEnrollment(head.id, object)
		}
		bulk.Items = append(bulk.Items, item)
	}
	return bulk, nil
}

// decodeBulk takes a bulk request apart, whose items are in the member items.
// The mode often comes after them.
func decodeBulk(items string, body []byte) (mode BulkMode, list [][]byte, err error) {
	if err := checkObject(body); err != nil {
		return "", nil, err
	}
	err = eachMember(body, func(name, value []byte) (err error) {
		switch n := string(name); {
		case isNull(value):
		case n == "mode":
			mode, err = bulkModeValue(value)
		case n == items:
			list, err = bulkList(items, value)
		default:
			err = misspelt("", name, "mode", items)
		}
		return err
	})
	switch {
	case err != nil:
		return "", nil, err
	case mode == "":
		return "", nil, refuse("mode", "is missing")
	case list == nil:
		return "", nil, refuse(items, "is missing or empty")
	}
	return mode, list, nil
}

func bulkModeValue(value []byte) (BulkMode, error) {
	word, err := stringValue("mode", value)
	if err != nil {
		return "", err
	}
	for _, m := range bulkModes {
		if equalFold(word, string(m)) {
			return m, nil
		}
	}
	return "", refuse("mode", "must be one of: create, update, updateIfMatchETag, delete")
}

func bulkList(path string, array []byte) (list [][]byte, err error) {
	if array[0] != '[' {
		return nil, refuse(path, "must be an array")
	}
	err = eachElement(array, func(value []byte) error {
		switch {
		case len(list) == MaxBulk:
			return refuse(path, "holds more than %d items", MaxBulk)
		case value[0] != '{':
			return refuse(itemPath(path, len(list)), "must be an object")
		}
		list = append(list, value)
		return nil
	})
	return list, err
}

func itemPath(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

// bulkHead is what every mode needs of an item; err is the item's own fault.
type bulkHead struct {
	id, etag string
	err      error
}

// decodeBulkHead reads item i of list, whose id is in the member idName. An item
// that cannot be named in the answer, or that repeats an id of seen, makes the
// whole request unacceptable.
func decodeBulkHead(list string, i int, idName string, object []byte, seen map[string]bool) (h bulkHead, err error) {
	parent := itemPath(list, i) + "."
	err = eachMember(object, func(name, value []byte) (err error) {
		switch n := string(name); {
		case isNull(value):
		case n == idName:
			h.id, err = idValue(parent+idName, value)
		case n == "etag":
			etag, fault := stringValue("etag", value)
			h.etag, h.err = strings.TrimSpace(etag), cmp.Or(h.err, fault)
		case equalFold(n, "etag"):
			h.err = cmp.Or(h.err, misspelt("", name, "etag"))
		default:
			err = misspelt(parent, name, idName)
		}
		return err
	})
	folded := FoldID(h.id)
	switch {
	case err != nil:
		return bulkHead{}, err
	case h.id == "":
		return bulkHead{}, refuse(parent+idName, "is missing")
	case seen[folded]:
		return bulkHead{}, refuse(parent+idName, "is that of an earlier item")
	}
	seen[folded] = true
	return h, nil
}
