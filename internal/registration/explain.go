package registration

// String is the reason as logs and metrics spell it.
func (r Reason) String() string {
	if r >= reasonCount {
		return "unknown"
	}
	return reasons[r].name
}

// Explain is one or two sentences for the operator: what it means and what to do.
func (r Reason) Explain() string {
	if r >= reasonCount {
		return ""
	}
	return reasons[r].text
}

var reasons = [reasonCount]struct{ name, text string }{
	ReasonNone:                {"none", "No decision was taken."},
	ReasonChallenged:          {"challenged", "The device showed a known EK and was given a challenge; it has not answered it in this request."},
	ReasonRegistered:          {"registered", "The device proved itself and its registration was accepted."},
	ReasonPolled:              {"polled", "The device polled its operation."},
	ReasonLookup:              {"looked-up", "The device proved itself and looked its registration up."},
	ReasonUnknownScope:        {"unknown-scope", "The ID scope in the path is not one of this service. Compare the device's ID scope with `latchkey init`'s output."},
	ReasonUnknownID:           {"unknown-id", "No enrollment has this registration id. Enroll it with `latchkey enroll add`."},
	ReasonOtherEK:             {"other-ek", "An enrollment has this registration id, but with another endorsement key. Compare `latchkey-device ek` with `latchkey enroll show`; a second EK template of the same chip, or another chip."},
	ReasonMissingTPM:          {"missing-tpm", "The request carried no tpm object to challenge, no SAS token and no client certificate."},
	ReasonBadEK:               {"bad-ek", "The endorsement key sent is not an acceptable TPM2B_PUBLIC; the answer names the rule."},
	ReasonBadSRK:              {"bad-srk", "The storage root key sent is not an acceptable TPM2B_PUBLIC; the answer names the rule."},
	ReasonBadRequest:          {"bad-request", "The request body could not be read; the answer names the place."},
	ReasonIDMismatch:          {"id-mismatch", "The registration ids in path and body differ."},
	ReasonBadID:               {"bad-id", "The registration id is not 1 to 128 of the allowed characters."},
	ReasonAPIVersion:          {"api-version", "The api-version was missing or is not a known one."},
	ReasonContentType:         {"content-type", "The body was not sent as application/json."},
	ReasonTooLarge:            {"too-large", "The body was larger than the limit."},
	ReasonSlowBody:            {"slow-body", "The body did not arrive in time."},
	ReasonBadToken:            {"bad-token", "The Authorization header is not a SAS token."},
	ReasonTokenExpired:        {"token-expired", "The SAS token had expired when the request arrived. Check the device's clock."},
	ReasonTokenFuture:         {"token-future", "The SAS token expires more than 48 hours ahead. Check the device's clock."},
	ReasonTokenOtherResource:  {"token-other-resource", "The SAS token was made for another scope or registration id."},
	ReasonTokenSignature:      {"token-signature", "Nothing that is known of this registration id verifies the SAS token. With a TPM: another TPM, another owner, an expired challenge, a token already used. With a symmetric key: another key than the enrollment's or its group's. Or the id is unknown."},
	ReasonTokenSpent:          {"token-spent", "The challenge had been redeemed by another request at the same moment."},
	ReasonOtherKeys:           {"other-keys", "The token proved one TPM and owner, but the body named other keys."},
	ReasonDisabled:            {"disabled", "The device proved itself, but its enrollment is disabled. Enable it to let the device in."},
	ReasonPinnedSRK:           {"pinned-srk", "The device proved itself, but the enrollment pins another storage root key: the TPM has another owner."},
	ReasonUnknownOperation:    {"unknown-operation", "The operation id is not one of this registration id."},
	ReasonOperationClosed:     {"operation-closed", "The operation is older than its window of 10 minutes. The device has to register again."},
	ReasonStoreDown:           {"store-down", "The store did not answer; the service's log has the cause."},
	ReasonHubDown:             {"hub-down", "The hub did not answer; the operation stays assigning and goes on by itself."},
	ReasonOverload:            {"overload", "The service had too many requests waiting and asked the device to come back later."},
	ReasonNotFound:            {"not-found", "The path is not one of this service."},
	ReasonMethod:              {"method", "The method is not allowed on this path."},
	ReasonCSR:                 {"csr", "The request asked for a certificate, which this service does not issue."},
	ReasonAdminToken:          {"admin-token", "The management request's SAS token did not verify: unknown policy, wrong key, expired, or made for another host or path."},
	ReasonAdminRight:          {"admin-right", "The access policy lacks the permission that this operation needs."},
	ReasonEnrollmentExists:    {"enrollment-exists", "The enrollment exists already and the request carried no If-Match."},
	ReasonEnrollmentMissing:   {"enrollment-missing", "There is no such enrollment."},
	ReasonRegistrationMissing: {"registration-missing", "There is no such registration."},
	ReasonEtag:                {"etag", "The If-Match etag is not the current one: somebody else changed the entry."},
	ReasonBadEnrollment:       {"bad-enrollment", "The enrollment was not acceptable; the answer names the rule."},
	ReasonConflict:            {"conflict", "Other requests kept changing the same entry."},
	ReasonInternal:            {"internal", "A fault of the service; its log has the cause."},
	ReasonHubFailed:           {"hub-failed", "The hub refused the device."},
	ReasonSuperseded:          {"superseded", "A newer registration of the same device took the place of this operation."},
	ReasonChanged:             {"changed", "The operator changed the entry."},
	ReasonDeleted:             {"deleted", "The operator deleted the entry."},
	ReasonDeviceIDTaken:       {"device-id-taken", "The device proved itself, but another registration has its device id at the hub. Give one of the two enrollments another device id, or delete the other registration."},
	ReasonManaged:             {"managed", "An operator's request was carried out."},
	ReasonOwnerChanged:        {"owner-changed", "The device proved itself under a new owner and was given a new hub key; the old one is dead."},
	ReasonPolicyMissing:       {"access-policy-missing", "There is no access policy of this name."},
	ReasonPolicyExists:        {"access-policy-exists", "An access policy of this name exists already, and the request was to create one."},
	ReasonLastPolicy:          {"last-access-policy", "Only this access policy has the permission ServiceConfig. Give it to another one first, so that the scope can still be managed."},
	ReasonOtherMechanism:      {"other-mechanism", "The enrollment of this registration id expects another kind of proof than the device gave: compare attestation.type in `latchkey enroll show` with what the device is set up for."},
	ReasonOtherCertificate:    {"other-certificate", "The device's enrollment names other client certificates than the one shown. Compare the SHA-256 thumbprints."},
	ReasonUnknownCertificate:  {"unknown-certificate", "The registration id has no enrollment, and no enrollment group has a CA above the client certificate, or the path to it is not valid: the device must send the intermediate certificates too."},
	ReasonCertificateName:     {"certificate-name", "The common name of the client certificate is not the registration id that the device asked for."},
	ReasonCertificateTime:     {"certificate-time", "The client certificate is not valid now: it has ended or not begun. Renew it; check the clock of this machine."},
	ReasonGroupExists:         {"group-exists", "The enrollment group exists already and the request carried no If-Match."},
	ReasonGroupMissing:        {"group-missing", "There is no such enrollment group."},
	ReasonBadGroup:            {"bad-group", "The enrollment group was not acceptable; the answer names the rule."},
	ReasonCertificateTaken:    {"certificate-taken", "A certificate of the entry is in another entry of the scope already; one certificate belongs to one entry."},
	ReasonCAExists:            {"ca-exists", "A CA certificate of this name exists already."},
	ReasonCAMissing:           {"ca-missing", "There is no CA certificate of this name."},
	ReasonCAInUse:             {"ca-in-use", "An enrollment group refers to the CA certificate. Change or delete the group first."},
	ReasonBadCA:               {"bad-ca", "The CA certificate, or the proof that its private key is held, was not acceptable; the answer names the rule."},
	ReasonTooManyGroups:       {"too-many-groups", "The scope has as many enrollment groups of this mechanism as it may have. Put devices into fewer groups."},
	ReasonNotHome:             {"not-home", "Scopes are managed by the access policies of the home scope, the one that `latchkey init` made, and this request came with those of another."},
	ReasonScopeMissing:        {"scope-missing", "There is no such scope."},
	ReasonHostTaken:           {"host-taken", "A host name of the new scope is another scope's already."},
	ReasonBadScope:            {"bad-scope", "The scope was not acceptable; the answer names the rule."},
	ReasonDeviceMissing:       {"device-missing", "The hub has no device of this id."},
	ReasonDeviceExists:        {"device-exists", "The hub has a device of this id already, and the request was to create one: to change it, send its etag or * in If-Match."},
	ReasonBadDevice:           {"bad-device", "The device identity, twin, message or method call was not acceptable; the answer names the rule."},
	ReasonDeviceOffline:       {"device-offline", "The device had no connection to the hub, or did not listen for direct methods."},
	ReasonMethodTimeout:       {"method-timeout", "The device did not answer the direct method in time."},
	ReasonQueueFull:           {"queue-full", "As many messages wait for the device as may wait. It must take some first, or purge them."},
	ReasonNoModules:           {"not-offered", "The embedded hub does not offer this part of an IoT Hub; docs/hubs/service-api.md says what it does."},
	ReasonHubElsewhere:        {"hub-elsewhere", "Another process has the sessions of the hub, and this one could not have done what was asked: send the request to the node that serves the hub."},
	ReasonTooManyPolicies:     {"too-many-access-policies", "The scope has as many access policies as it may have. Remove one that is not used."},
}
