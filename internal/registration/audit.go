package registration

// Actions of audit rows: a closed set.
const (
	ActionScopeCreate        = "scope.create"
	ActionEnrollmentPut      = "enrollment.put"
	ActionEnrollmentDelete   = "enrollment.delete"
	ActionRegistrationDelete = "registration.delete"
	ActionRegister           = "device.register"
	ActionPoll               = "device.poll"
	ActionLookup             = "device.lookup"
	ActionAssign             = "device.assign"
	ActionIdentityPut        = "hub.identity.put"
)

// Outcomes of audit rows.
const (
	OutcomeOK      = "ok"
	OutcomeRefused = "refused"
)

// Actors that are not an access policy.
const (
	ActorDevice  = "device"
	ActorService = "service"
	ActorLocal   = "operator"
)
