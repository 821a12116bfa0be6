package dps

// EncodeEnrollments is the body of an answer to a query: a bare array, the
// enrollments without registrationState and without symmetric keys. The list
// stays as it is.
func EncodeEnrollments(list []IndividualEnrollment) []byte {
	return encodeList(list, func(b []byte, e IndividualEnrollment) []byte {
		e.RegistrationState = nil
		return append(b, e.Encode()...)
	})
}

// EncodeGroups is the body of an answer to a query of groups: a bare array,
// without symmetric keys.
func EncodeGroups(list []EnrollmentGroup) []byte {
	return encodeList(list, func(b []byte, g EnrollmentGroup) []byte { return append(b, g.Encode()...) })
}

// EncodeRegistrations is the body of an answer to a query of registrations: a
// bare array. What only the device is told is left out.
func EncodeRegistrations(list []RegistrationState) []byte {
	return encodeList(list, func(b []byte, s RegistrationState) []byte {
		s.TPM, s.X509, s.SymmetricKey = nil, nil, nil
		return s.appendTo(b)
	})
}

func encodeList[T any](list []T, appendItem func([]byte, T) []byte) []byte {
	b := append(make([]byte, 0, 2+512*len(list)), '[')
	for i, item := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendItem(b, item)
	}
	return append(b, ']')
}
