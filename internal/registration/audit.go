package registration

// Actions of audit rows: a closed set.
const (
	ActionScopeCreate        = "scope.create"
	ActionScopeDelete        = "scope.delete"
	ActionScopeRenew         = "scope.renew" // its server certificate
	ActionEnrollmentPut      = "enrollment.put"
	ActionEnrollmentDelete   = "enrollment.delete"
	ActionEnrollmentReveal   = "enrollment.reveal" // its symmetric keys were shown; the answer to a put shows them too, those that stayed with them
	ActionGroupPut           = "group.put"
	ActionGroupDelete        = "group.delete"
	ActionGroupReveal        = "group.reveal"
	ActionExportReveal       = "export.reveal" // symmetric keys of all enrollments and groups were exported
	ActionCAPut              = "ca-certificate.put"
	ActionCAVerify           = "ca-certificate.verify"
	ActionCADelete           = "ca-certificate.delete"
	ActionAuditExpire        = "audit.expire"
	ActionRegistrationDelete = "registration.delete"
	ActionRegister           = "device.register"
	ActionPoll               = "device.poll"
	ActionLookup             = "device.lookup"
	ActionAssign             = "device.assign"
	ActionClose              = "device.close" // a device closed its own registration
	ActionOfferPut           = "transfer.offer"
	ActionOfferDelete        = "transfer.withdraw"
	ActionOfferLeave         = "transfer.leave"  // another scope took the offer: enrollment and registration are gone from this one
	ActionOfferAccept        = "transfer.accept" // in the scope that took it
	ActionIdentityPut        = "hub.identity.put"
	ActionIdentityDelete     = "hub.identity.delete"
	ActionDevicePut          = "hub.device.put" // by an application, as the ones below
	ActionDeviceDelete       = "hub.device.delete"
	ActionDeviceReveal       = "hub.device.reveal" // keys of devices were shown
	ActionTwinPut            = "hub.twin.put"
	ActionMessageSend        = "hub.message.send"
	ActionMessagePurge       = "hub.message.purge"
	ActionMethodInvoke       = "hub.method.invoke"
	ActionHubDisable         = "hub.device.disable" // as the operator ordered when he shut the device out
	ActionHubRemove          = "hub.device.remove"  // likewise
	ActionPolicyPut          = "access-policy.put"
	ActionPolicyRegenerate   = "access-policy.regenerate"
	ActionPolicyDelete       = "access-policy.delete"
	ActionPolicyReveal       = "access-policy.reveal" // its keys were shown
	ActionHubLink            = "linked-hub.link"
	ActionHubChange          = "linked-hub.change"
	ActionHubUnlink          = "linked-hub.unlink"
	ActionAllocationPut      = "allocation.put"
	ActionWebhookKeyPut      = "webhook-key.put" // a fresh one was made, and shown
	ActionWebhookKeyDelete   = "webhook-key.delete"
)

// actions is the set of them, in the order above.
var actions = []string{
	ActionScopeCreate, ActionScopeDelete, ActionScopeRenew, ActionEnrollmentPut, ActionEnrollmentDelete, ActionEnrollmentReveal,
	ActionGroupPut, ActionGroupDelete, ActionGroupReveal, ActionExportReveal, ActionCAPut, ActionCAVerify, ActionCADelete, ActionAuditExpire, ActionRegistrationDelete,
	ActionRegister, ActionPoll, ActionLookup, ActionAssign, ActionClose, ActionOfferPut, ActionOfferDelete, ActionOfferLeave, ActionOfferAccept, ActionIdentityPut,
	ActionDevicePut, ActionDeviceDelete, ActionDeviceReveal, ActionTwinPut, ActionMessageSend, ActionMessagePurge, ActionMethodInvoke, ActionIdentityDelete,
	ActionHubDisable, ActionHubRemove,
	ActionPolicyPut, ActionPolicyRegenerate, ActionPolicyDelete, ActionPolicyReveal,
	ActionHubLink, ActionHubChange, ActionHubUnlink, ActionAllocationPut, ActionWebhookKeyPut, ActionWebhookKeyDelete,
}

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
